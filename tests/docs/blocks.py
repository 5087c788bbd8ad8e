"""The fenced blocks of a Markdown page: language, title, text and line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("python", "sh")
"""Languages whose blocks are run; a block with a title is written to that file instead."""


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


def steps(page: Path) -> Iterator[Block]:
    """What is to be done with a page, in order: files to write, and commands, of which those in Python that follow each
    other are one, so that torch is imported once."""
    waiting: Block | None = None
    for block in blocks(page):
        joins = block.language == "python" and not block.title
        if waiting is not None and joins:
            waiting = replace(waiting, text=f"{waiting.text}\n# line {block.line}\n{block.text}")
            continue
        if block.title or block.language in RUN:
            if waiting is not None:
                yield waiting
            waiting = block if joins else None
            if not joins:
                yield block
    if waiting is not None:
        yield waiting
