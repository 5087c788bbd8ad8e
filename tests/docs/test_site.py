"""The site builds, loads nothing from elsewhere, and says everything that the code has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import wave
from docs.generate.__main__ import MADE, out_of_date
from docs.generate.packages import graph, levels

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r"""<(?:script|img|source|iframe)[^>]*\ssrc=["']?(https?:)?//|<link[^>]*\shref=["']?(https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert not [page.name for page in pages if LOADED.search(page.read_text())]


def test_every_page_is_there_and_no_equation_is_left_as_tex(site: Path) -> None:
    for name in (
        "tutorial",
        "guides/cluster",
        "contributing",
        "changelog",
        "tables/fashion_mnist_comparison",
        "method",
    ):
        text = (site / name / "index.html").read_text()
        assert "arithmatex" not in text, name
    assert "<math" in (site / "method/index.html").read_text()


def test_every_public_name_of_the_library_is_on_the_page(site: Path) -> None:
    text = (ROOT / "docs/reference/api.md").read_text()
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)", text, re.MULTILINE)}
    assert set(wave.__all__) - {"KINDS"} <= shown


def test_pages_and_pictures_made_from_the_code_are_up_to_date() -> None:
    assert not out_of_date(), "run: make generate"
    assert set(MADE) >= {"reference/settings.md", "reference/commands.md"}


@pytest.mark.parametrize("tree", ["pipelines", "cluster"])
def test_the_picture_of_the_packages_has_few_levels_and_no_circle(tree: str) -> None:
    direct = graph(tree)
    assert max(levels(direct).values()) < 9
    assert sum(map(len, direct.values())) <= 40
