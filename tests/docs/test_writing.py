"""What WRITING asks of pages and can be counted: lengths, and words that the project does not use."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = {"README.md": 120, "method.md": 250, "results.md": 250}
WORDS = re.compile(r"\b(rivals?|stages 1|a line a method|as it comes)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_keeps_to_its_length_and_vocabulary(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= LONGEST.get(page.name, 1000)
    assert not WORDS.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_prose_has_lines_of_100_columns(page: Path) -> None:
    if page.parent.name == "reference":
        pytest.skip("made from the code")
    whole = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in whole.splitlines() if len(line) > 100 and not line.startswith(("|", "!", "#", "    "))]
    assert not long


def test_the_readme_is_about_700_words() -> None:
    assert 500 <= len((ROOT / "README.md").read_text().split()) <= 800


NAMED = re.compile(r"`((?:wave|pipelines|cluster|benchmarks|docs|tests)/[\w./-]*)`")
LINKED = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")
WITH_LINKS = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks/RESULTS.md",
    *sorted((ROOT / "benchmarks/tables").glob("*.md")),
]


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: page.stem)
def test_what_a_page_names_or_links_to_exists(page: Path) -> None:
    """NAME and PACKAGE stand for whatever the reader puts there."""
    text = page.read_text()
    named = [ROOT / name for name in NAMED.findall(text) if not re.search(r"[A-Z]{4}", name)]
    linked = [page.parent / target for target in LINKED.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    assert not [str(path) for path in (*named, *linked) if not path.exists()]
