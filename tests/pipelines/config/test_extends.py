"""One experiment's file on top of another's."""

from pathlib import Path

import pytest

from pipelines.config.experiment import load, parse, resolved
from pipelines.config.toml import read_toml
from tests.pipelines.support import ROOT
from wave.errors import WaveError

RUN = ROOT / "pipelines/experiments/fashion_mnist.toml"


def test_a_file_holds_where_the_one_on_top_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(RUN.read_text())
    (tmp_path / "below").mkdir()
    top = tmp_path / "below/top.toml"
    top.write_text('extends = "../base.toml"\nname = "top"\nseed = 3\n[distil.recipe]\nsteps = 7000\n')
    found, base = load(top), load(RUN)
    assert (found.name, found.output, found.seed) == ("top", "runs/top", 3)
    assert found.distil.recipe.steps == 7000 and found.distil.recipe.tau == base.distil.recipe.tau
    assert found.distil.sizes == base.distil.sizes and found.ancestor == base.ancestor
    assert load(top, ["distil.recipe.steps=5"]).distil.recipe.steps == 5
    (tmp_path / "resolved.toml").write_text(resolved(found))  # stands alone, wherever it lies
    assert load(tmp_path / "resolved.toml") == found == parse(read_toml(top))


def test_a_list_is_replaced_whole_and_nothing_is_shared(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("list = [1, 2]\n[t]\nx = 1\ny = {z = 1}\n")
    (tmp_path / "b.toml").write_text('extends = "a.toml"\nlist = [3]\n[t]\ny = {w = 2}\n')
    assert read_toml(tmp_path / "b.toml") == {"list": [3], "t": {"x": 1, "y": {"z": 1, "w": 2}}}
    assert read_toml(tmp_path / "a.toml") == {"list": [1, 2], "t": {"x": 1, "y": {"z": 1}}}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('extends = "bsae.toml"', r"top.toml: extends: .*/bsae.toml: no such file; nearest: .*/base.toml"),
        ('extends = "other.toml"', r"top.toml: extends other.toml, which extends another file itself"),
        ('extends = "top.toml"', r"top.toml: extends top.toml, which extends another file itself"),
        ('extends = "wrong.toml"', r"top.toml: extends: .*/wrong.toml: not valid TOML"),
        ('extends = "."', r"top.toml: extends: .*: is a folder; name one TOML file in it"),
        ('extends = "/base.toml"', r"top.toml: extends='/base.toml' should be relative to the folder of top.toml"),
        ("extends = 3", r"top.toml: extends=3 should be text; put the name in quotes"),
        ('extends = "a\\u0000b"', r"top.toml: extends: .* cannot be read"),
    ],
)
def test_a_file_that_cannot_be_extended_is_one_line(line: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(RUN.read_text())
    (tmp_path / "other.toml").write_text('extends = "base.toml"\n')
    (tmp_path / "wrong.toml").write_text("=")
    (tmp_path / "top.toml").write_text(f"{line}\n")
    with pytest.raises(WaveError, match=text) as raised:
        load(tmp_path / "top.toml")
    assert "\n" not in str(raised.value)


def test_an_override_cannot_extend() -> None:
    with pytest.raises(WaveError, match=r'^--set extends="x.toml" works in a file only'):
        load(RUN, ["extends=x.toml"])


def test_the_run_of_fashion_mnist_fits_on_a_screen_and_has_no_comparison() -> None:
    assert len(RUN.read_text().splitlines()) <= 50
    assert not load(RUN).evaluate.studies and not load(RUN).evaluate.results
