"""Drawing: boxes, arrows and words as SVG text on white, readable on light and dark pages."""

from html import escape

STYLE = """
.box { fill: #eef2fb; stroke: #3b5bad; } .soft { fill: #f7f7f7; stroke: #8a8a8a; }
.line { stroke: #5a5a5a; fill: none; } .head { fill: #5a5a5a; }
text { fill: #1b1b1b; font-family: system-ui, sans-serif; } .faint { fill: #5f5f5f; }
"""


class Drawing:
    """Shapes in the order they are drawn."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, *, soft: bool = False) -> None:
        """A rounded rectangle by its upper left corner."""
        kind = "soft" if soft else "box"
        self.shapes.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')

    def text(self, x: float, y: float, words: str, *, size: int = 14, bold: bool = False, faint: bool = False) -> None:
        """One centred line."""
        weight = ' font-weight="600"' if bold else ""
        kind = ' class="faint"' if faint else ""
        self.shapes.append(
            f'<text{kind} x="{x:g}" y="{y:g}" font-size="{size}"{weight} text-anchor="middle">{escape(words)}</text>'
        )

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A straight line with a head at its end."""
        (x1, y1), (x2, y2) = start, end
        line = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
        self.shapes.append(f'<line class="line" {line} stroke-width="1.4" marker-end="url(#head)"/>')

    def svg(self) -> str:
        """The file's text."""
        width, height = self.size
        head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        head += '<path class="head" d="M0,0 L8,4 L0,8 z"/></marker>'
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        parts = [opening, f"<title>{escape(self.title)}</title>", f"<style>{STYLE}</style>", f"<defs>{head}</defs>"]
        parts += [f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *self.shapes, "</svg>"]
        return "\n".join(parts) + "\n"
