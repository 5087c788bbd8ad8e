"""What every stage builds on: the output folder, the Ray session, progress on the console."""
