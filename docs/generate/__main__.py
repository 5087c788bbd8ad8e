"""``python -m docs.generate`` writes the pages and pictures that come from the code; ``--check`` names stale ones."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generate import commands, overview, packages, settings

ROOT = Path(__file__).resolve().parents[1]
MADE: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings.page,
    "reference/commands.md": commands.page,
    "pictures/packages.svg": packages.picture,
    "pictures/overview.svg": overview.picture,
}


def out_of_date() -> list[str]:
    """The files whose committed text is not what the code gives."""
    return [name for name, make in MADE.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != make()]


def main(arguments: list[str]) -> int:
    """Exit code 1 if a check fails."""
    if arguments == ["--check"]:
        stale = out_of_date()
        for name in stale:
            print(f"docs/{name} is out of date; run: make generate", file=sys.stderr)
        return 1 if stale else 0
    for name, make in MADE.items():
        (ROOT / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
