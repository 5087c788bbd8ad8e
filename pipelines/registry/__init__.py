"""The MLflow store: runs, registered models, and queries on them."""
