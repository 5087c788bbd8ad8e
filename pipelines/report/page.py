"""Parts of a report as one self-contained HTML page and as Markdown."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from pipelines.report.tables import Table

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1.5em;color:#1a1a1a}
h1{font-size:1.7em}h2{margin-top:2.2em;border-bottom:1px solid #ccc;padding-bottom:.2em}h4{margin:1.6em 0 .4em}
img{max-width:100%;display:block;margin:.6em 0}nav a{margin-right:1.2em}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums}
td,th{padding:.18em .8em;text-align:right;white-space:nowrap;border-bottom:1px solid #eee}
td:first-child,th:first-child{text-align:left}th{border-bottom:2px solid #888}tr:hover td{background:#f6f6f6}
.best{font-weight:700}.faint{color:#999;font-size:.85em}
"""


@dataclass
class Part:
    """A section: text, figures (file name, caption, picture), tables, and where ours is behind."""

    title: str
    text: list[str] = field(default_factory=list)
    figures: list[tuple[str, str, Figure]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)

    def add(self, name: str, caption: str, figure: Figure | None) -> None:
        """A figure, if there is one."""
        if figure is not None:
            self.figures.append((name, caption, figure))


def page(title: str, parts: Sequence[Part], pictures: Mapping[str, bytes]) -> str:
    """The HTML page; pictures are in it, nothing is loaded from elsewhere."""
    links = "".join(f'<a href="#part{i}">{html.escape(part.title)}</a>' for i, part in enumerate(parts))
    body = "".join(_part(f"part{i}", part, pictures) for i, part in enumerate(parts))
    head = f'<meta charset=utf-8><meta name=viewport content="width=device-width"><title>{html.escape(title)}</title>'
    return (
        f"<!doctype html><html lang=en>{head}<style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><nav>{links}</nav>{body}</html>\n"
    )


def _part(anchor: str, part: Part, pictures: Mapping[str, bytes]) -> str:
    text = "".join(f"<p>{html.escape(line)}</p>" for line in part.text)
    figures = "".join(
        f'<h4>{html.escape(caption)}</h4><img alt="{html.escape(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(pictures[name]).decode()}">'
        for name, caption, _ in part.figures
    )
    behind = "".join(f"<li>{html.escape(line)}</li>" for line in part.lists)
    lost = f"<h4>Where ours is behind</h4><ul>{behind}</ul>" if part.lists else ""
    tables = [table.html() for table in part.tables]
    first, rest = (tables[:1], tables[1:]) if part.lists else ([], tables)
    return f'<h2 id="{anchor}">{html.escape(part.title)}</h2>{text}{"".join(first)}{lost}{figures}{"".join(rest)}'


def markdown(name: str, parts: Sequence[Part]) -> str:
    """The tables and texts, without pictures."""
    lines = [f"# Comparison: {name}", ""]
    for part in parts:
        if not (part.tables or part.lists or part is parts[0]):
            continue
        lines += [f"## {part.title}", "", *(f"{text}\n" for text in part.text)]
        tables = [table.markdown() for table in part.tables]
        first, rest = (tables[:1], tables[1:]) if part.lists else ([], tables)
        lines += first
        if part.lists:
            lines += ["Where ours is behind:", "", *(f"- {line}" for line in part.lists), ""]
        lines += rest
    return "\n".join(lines)
