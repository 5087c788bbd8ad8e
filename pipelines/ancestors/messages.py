"""What other programs' errors say, for a message of one line."""


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
