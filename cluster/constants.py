"""What submission and deployment have to agree on."""

# Seconds from SIGTERM to SIGKILL when a job is stopped; Ray's own 3 s are too few to write a checkpoint.
STOP_SECONDS = 60


CODE = "/home/ray/wave"  # where the image has the code
