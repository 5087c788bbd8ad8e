"""Checks whether a cluster can run what is submitted to it."""
