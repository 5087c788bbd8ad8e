"""Text of other people, made safe to print."""


def printable(text: str) -> str:
    """Text that anybody may have written, on one line: what could move a terminal's cursor or hide text is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
