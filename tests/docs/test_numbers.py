"""Numbers on the README and the results page are those of the committed results."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.runtime.console import scaled

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs/results.md").read_text()
TABLES = (ROOT / "benchmarks/tables/fashion_mnist_comparison.md").read_text()


def run(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"benchmarks/results/{name}_run.json").read_text())


def rows(text: str, start: str) -> dict[str, list[str]]:
    """First cell -> the others, of the first table after ``start``; bold and spreads are taken off."""
    table = text[text.index(start) :].split("\n\n| ", 1)[1].split("\n\n", 1)[0]
    cells = [re.sub(r"\*\*| ±[\d.]+", "", line).strip("| ").split("|") for line in table.splitlines()[2:]]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in cells}


def test_the_demo_s_lines_are_those_of_the_committed_run() -> None:
    sizes = {row["size"]: row for row in run("digits")["sizes"]}
    lines = re.findall(r"^ +(d\d+-l\d+) +([\d.]+k) +([\d.]+k) +([\d.]+)% +([\d.]+)% +([\d.]+)% ", README, re.MULTILINE)
    assert len(lines) == 3
    for name, parameters, scalers, *accuracies in lines:
        row = sizes[name]
        assert [f"{scaled(row[key])[0]:.1f}k" for key in ("parameters", "scalers")] == [parameters, scalers]
        made = [f"{100 * row[f'accuracy_{key}']:.1f}" for key in ("before", "after", "scratch")]
        assert made == accuracies


def test_the_run_on_fashion_mnist() -> None:
    data = run("fashion_mnist")
    before, after, scratch = (
        [row[f"accuracy_{key}"] for row in data["sizes"]] for key in ("before", "after", "scratch")
    )
    for text in (
        f"| ancestor | {100 * data['ancestor']['accuracy']:.1f} |",
        f"| auxiliary model (same size, from templates) | {100 * data['templates']['accuracy']:.1f} |",
        f"{100 * min(before):.1f} to {100 * max(before):.1f}, mean {100 * sum(before) / len(before):.1f}",
        f"| {100 * min(after):.1f} to {100 * max(after):.1f} |",
        f"| {100 * min(scratch):.1f} to {100 * max(scratch):.1f} |",
    ):
        assert text in RESULTS


def test_training_from_scratch() -> None:
    made, shown = rows(TABLES, "### 200 steps against 3000"), rows(RESULTS, "## Table 2")
    assert len(shown) == 7
    for size, values in shown.items():
        ours0, ours200, _, _, direct200, *_, direct3000, distilled = made[size]
        assert values == [ours0, ours200, direct200, direct3000, distilled]


def test_baselines() -> None:
    made = rows(TABLES, "### sizes: ours against")
    shown = rows(RESULTS, "## Table 3")
    total = [sum(int(values[place]) for values in made.values()) for place in range(3)]
    assert [int(value) for value in shown.pop("all")] == total
    assert [sum(int(values[place]) for values in shown.values()) for place in range(3)] == total
    won, level, lost = total
    assert f"{won} of {sum(total)} comparisons won, {level} level, {lost} lost" in README


@pytest.mark.parametrize("place", [1, 2])
def test_shares(place: int) -> None:
    lines = (ROOT / "benchmarks/results/fashion_mnist.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if '"share"' in line]
    shares = {row["method"]: (100 * row["share"], 100 * row["share_all"]) for row in found}
    names = ("wave_n7", "wave_n16", "wave_n46", "wave", "wave_n128", "wave_nall", "wave_n238_aux")
    shown = [values[place - 1] for values in rows(RESULTS, "## Table 4").values()]
    assert shown == [f"{shares[name][place - 1]:.1f}" for name in names]
