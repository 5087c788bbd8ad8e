"""Every `python` and `sh` block of the pages runs, in the folder of a short version of the tutorial's run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines.config.experiment import parse
from tests.docs.blocks import RUN, Block, blocks, steps
from tests.pipelines.support import SILENT

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
AFTER = [ROOT / "README.md", *GUIDES, ROOT / "docs/reference/api.md", ROOT / "docs/results.md"]
"""Pages that use what the tutorial made."""
CHECKOUT = ("wave", "pipelines", "cluster", "benchmarks", "pyproject.toml", "constraints.txt")
SHORTER = (
    (r"steps = 1200", "steps = 12"),
    (r"epochs=\d+", "epochs=1"),
    (r"embed_dim = \[32, 48, 64, 80, 96\], depth = \[3, 4, 5, 6, 7, 8, 9\]", "embed_dim = [32, 96], depth = [3, 9]"),
)
"""The tutorial's run takes minutes; with these it takes seconds and does the same."""
NAMES = (("digits@", "my-run@"), ("runs/digits", "runs/my-run"))
"""The README speaks of `make demo`, which makes the same under another name."""


def shorter(text: str) -> str:
    for pattern, instead in SHORTER:
        text = re.sub(pattern, instead, text)
    for name, instead in NAMES:
        text = text.replace(name, instead)
    return text


def run(block: Block, folder: Path) -> None:
    """Write the block if it has a title, else run it there."""
    text = shorter(block.text)
    if block.title:
        (folder / block.title).write_text(text)
        return
    command = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **SILENT, "PATH": path}, capture_output=True, text=True, timeout=900
    )
    where = f"{block.page.relative_to(ROOT)}:{block.line}"
    assert done.returncode == 0, f"{where}\n{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has after the tutorial: a checkout, its blocks run in order."""
    made = tmp_path_factory.mktemp("reader")
    for name in CHECKOUT:
        (made / name).symlink_to(ROOT / name)
    for step in steps(ROOT / "docs/tutorial.md"):
        run(step, made)
    return made


@pytest.mark.slow
def test_the_tutorial_ends_with_a_registered_and_a_pulled_model(folder: Path) -> None:
    assert (folder / "runs/my-run/results.csv").is_file() and (folder / "my-vit/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", AFTER, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    for step in steps(page):
        run(step, folder)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOML = [block for page in PAGES for block in blocks(page) if block.language == "toml"]
WHOLE = {
    "data": {"path": "data"},
    "distil": {"recipe": {"steps": 1}},
    "initialise": {},
    "targets": {"grid": {"embed_dim": [64], "depth": [3]}},
    "ancestor": {"source": "timm:vit_tiny_patch16_224"},
}
"""What a fragment on a page leaves out."""


@pytest.mark.parametrize("block", TOML, ids=lambda block: f"{block.page.stem}:{block.line}")
def test_every_toml_block_is_a_valid_experiment_or_part_of_one(block: Block) -> None:
    given = tomllib.loads(block.text)
    table = (
        {"name": "part"}
        | {key: {**default, **given.get(key, {})} for key, default in WHOLE.items()}
        | {key: value for key, value in given.items() if key not in WHOLE}
    )
    if "sizes" in given.get("targets", {}):
        table["targets"] = given["targets"]
    if "recipe" in given.get("initialise", {}) or "resources" in given.get("initialise", {}):
        table["initialise"] = given["initialise"]
    parse(table, f"{block.page.name}:{block.line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_says_what_it_is(page: Path) -> None:
    known = {*RUN, "toml", "console", "text"}
    assert {block.language for block in blocks(page)} <= known
