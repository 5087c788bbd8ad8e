"""Jobs on a Ray cluster: packaging, submission, status and logs."""
