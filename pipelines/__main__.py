"""``python -m pipelines``."""

from .cli import main

main()
