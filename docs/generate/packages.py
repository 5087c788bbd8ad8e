"""The picture of the packages: one box per package, one arrow per direct dependency, read from the imports."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from docs.generate.svg import Drawing

ROOT = Path(__file__).resolve().parents[2]
NOTES = {
    "wave": "the method; torch and timm only",
    "config": "the TOML file, validated",
    "runtime": "output folder, Ray, progress",
    "data": "image files to batches",
    "registry": "MLflow",
    "ancestors": "any trained model",
    "stages": "the steps of a run",
    "comparison": "baselines under one budget",
    "report": "pages and charts",
    "cli": "the commands",
    "errors": "one-line errors",
    "constants": "names both sides know",
    "local": "a head on this machine",
    "jobs": "submit and follow",
    "deploy": "Kubernetes, rented machines",
    "doctor": "checks of every node",
}
WIDTH, HEIGHT, GAP = 196, 46, 40


def files(tree: str) -> Iterator[tuple[str, Path]]:
    """(package, file) of every Python file below a tree."""
    for path in sorted((ROOT / tree).rglob("*.py")):
        inner = path.relative_to(ROOT / tree).parts
        name = inner[0] if len(inner) > 1 else inner[0].removesuffix(".py")
        if name in ("__init__", "__main__"):
            continue
        yield name, path


def graph(tree: str) -> dict[str, set[str]]:
    """Package -> packages of the same tree that it imports."""
    found: dict[str, set[str]] = {}
    for name, path in files(tree):
        imported = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            for target in targets(node, path):
                top, _, rest = target.partition(".")
                if top == tree and rest:
                    imported.add(rest.partition(".")[0])
        imported.discard(name)
    known = set(found)
    return {name: imported & known for name, imported in found.items()}


def targets(node: ast.AST, path: Path) -> list[str]:
    """Absolute names of the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = path.relative_to(ROOT).parts[: -node.level]
        base = ".".join([*parts, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def reduced(direct: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without arrows that follow from others."""
    reach: dict[str, set[str]] = {}
    for name in TopologicalSorter(direct).static_order():
        reach[name] = direct[name].union(*(reach[other] for other in direct[name]))
    return {
        name: {other for other in others if not any(other in reach[between] for between in others - {other})}
        for name, others in direct.items()
    }


def levels(direct: dict[str, set[str]]) -> dict[str, int]:
    """How many packages stand below each, on the longest way down."""
    level: dict[str, int] = {}
    for name in TopologicalSorter(direct).static_order():
        level[name] = 1 + max((level[other] for other in direct[name]), default=-1)
    return level


def picture() -> str:
    """`pipelines` on the left, upon `wave`; `cluster` on the right."""
    pipelines = {name: others | {"wave"} for name, others in graph("pipelines").items()} | {"wave": set()}
    trees = (("pipelines/", pipelines), ("cluster/", graph("cluster")))
    rows = max(max(levels(direct).values()) for _, direct in trees) + 1
    height = 70 + rows * (HEIGHT + GAP)
    widths = [max(sum(1 for v in levels(d).values() if v == n) for n in range(rows)) * (WIDTH + 24) for _, d in trees]
    drawing = Drawing(sum(widths) + 60, height, "Packages and what they import; an arrow points at what is imported")
    left = 20.0
    for (title, direct), width in zip(trees, widths, strict=True):
        drawing.text(left + width / 2, 28, title, bold=True, size=17)
        tree(drawing, direct, left, width, height - 20)
        left += width + 20
    return drawing.svg()


def tree(drawing: Drawing, direct: dict[str, set[str]], left: float, width: float, bottom: float) -> None:
    """One tree, what imports nothing at the bottom."""
    level = levels(direct)
    place: dict[str, tuple[float, float]] = {}
    for number in sorted(set(level.values())):
        names = sorted(name for name in level if level[name] == number)
        for index, name in enumerate(names):
            x = left + (index + 0.5) * width / len(names)
            place[name] = (x, bottom - HEIGHT - number * (HEIGHT + GAP))
    for name, others in sorted(reduced(direct).items()):
        for other in sorted(others):
            (x1, y1), (x2, y2) = place[name], place[other]
            drawing.arrow((x1 + (x2 - x1) * 0.12, y1 + HEIGHT), (x2 - (x2 - x1) * 0.12, y2 - 2))
    for name, (x, y) in sorted(place.items()):
        drawing.box(x - WIDTH / 2, y, WIDTH, HEIGHT, soft=name in ("wave", "errors", "constants"))
        drawing.text(x, y + 20, name, bold=True)
        drawing.text(x, y + 37, NOTES.get(name, ""), size=11, faint=True)
