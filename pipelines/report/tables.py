"""Table: rows of text with the best in bold, as Markdown and as HTML; and the tables of one study."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.report.evidence import StudyEvidence
from wave.spec import TargetSpec


class Text(NamedTuple):
    """One cell of a table."""

    text: str
    bold: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """A title, a head and rows whose first cell names them."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Text]]
    note: str = ""

    def markdown(self) -> str:
        """GitHub's kind of table under a heading."""
        lines = [f"### {self.title}", "", *([self.note, ""] if self.note else [])]
        lines += [_line(self.head), "| --- |" + " ---: |" * (len(self.head) - 1)]
        lines += [_line([f"**{cell.text}**" if cell.bold else cell.text for cell in row]) for row in self.rows]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """A table element with its heading."""
        head = "".join(f"<th>{html.escape(text)}</th>" for text in self.head)
        body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in self.rows)
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        table = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
        return f"<h4>{html.escape(self.title)}</h4>{note}{table}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Text) -> str:
    kind = ""
    if cell.bold:
        kind = ' class="best"'
    elif cell.faint:
        kind = ' class="faint"'
    return f"<td{kind}>{html.escape(cell.text)}</td>"


def groups(found: StudyEvidence) -> list[tuple[str, list[TargetSpec]]]:
    """The sizes of a study that differ from the ancestor in depth, in width, and in both.

    A few sizes are one group without a name.
    """
    source, sizes = found.cells.source, found.sizes
    if len(sizes) <= 5:
        return [("", sizes)]
    deep = [s for s in sizes if s.embed_dim == source.embed_dim]
    wide = [s for s in sizes if s.depth == source.depth]
    rest = [s for s in sizes if s not in deep and s not in wide]
    named = [("variable depth", deep), ("variable width", wide), ("both", rest)]
    return [(name, some) for name, some in named if some]


def study_tables(found: StudyEvidence) -> list[Table]:
    """Method x size, one table per group of sizes and number of steps.

    Of one method alone it is one table, size x steps.
    """
    if len(found.study.methods) == 1:
        return [_alone(found, found.study.methods[0])]
    tables: list[Table] = []
    for name, sizes in groups(found):
        for steps in found.steps:
            after = f"after {steps} steps" if steps else "at step 0, no training"
            title = f"{found.study.name}{', ' if name else ''}{name}: {after}"
            tables.append(_scores(title, found, sizes, steps))
    return tables


def _alone(found: StudyEvidence, method: str) -> Table:
    rows: list[list[Text]] = []
    for size in found.sizes:
        cells = [_text(found, method, size=size, steps=steps) for steps in found.steps]
        rows.append([Text(size.title), *cells])
    head = ["size", *(f"after {n} steps" for n in found.steps)]
    return Table(f"{found.study.name}: {method}", head, rows)


def _scores(title: str, found: StudyEvidence, sizes: Sequence[TargetSpec], steps: int) -> Table:
    best: dict[TargetSpec, str] = {}
    for size in sizes:
        means = [s.mean for s in (found.score(m, size, steps) for m in found.study.methods) if s]
        if means and (steps or not found.cells.transfer):  # nobody is best with a random classifier
            best[size] = f"{max(means):.3f}"
    rows: list[list[Text]] = []
    for method in found.study.methods:
        cells = [_text(found, method, size=size, steps=steps, best=best.get(size)) for size in sizes]
        rows.append([Text(method), *cells])
    return Table(title, ["method", *(s.title for s in sizes)], rows)


def _text(found: StudyEvidence, method: str, *, size: TargetSpec, steps: int, best: str | None = None) -> Text:
    score, wanted = found.score(method, size, steps), len(found.study.seeds)
    if score is None:
        return Text(found.absent(method, size, steps), faint=True)
    few = f" ({score.seeds} of {wanted} seeds)" if score.seeds < wanted else ""
    return Text(f"{score}{few}", bold=f"{score.mean:.3f}" == best)
