"""A Ray head and an MLflow server on this machine."""
