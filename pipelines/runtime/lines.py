"""Lines: the actor that carries progress to the driver. It imports nothing, so its process is up at once."""


class Lines:
    """Keeps lines until the driver fetches them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines
