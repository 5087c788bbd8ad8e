"""The fenced blocks of a Markdown page: language, title, text and line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("python", "sh")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    title: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """In the page's order."""
    whole = page.read_text()
    for found in FENCE.finditer(whole):
        title = re.search(r'title="([^"]+)"', found[2])
        line = whole.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], title[1] if title else "", found[3])
