"""The comparison's report from rows made up here: tables, what is missing, where ours loses, cost, the page itself."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.comparison.cells import Cell
from pipelines.comparison.evaluate import SETTINGS
from pipelines.comparison.results_log import ResultsLog
from pipelines.comparison.variants import variants
from pipelines.config.experiment import Experiment, load, parse, resolved
from pipelines.config.toml import apply_overrides, read_toml
from pipelines.report import report
from pipelines.report.comparison import compare, sections
from pipelines.report.cost import against_direct, costs
from pipelines.report.evidence import Evidence
from pipelines.report.page import markdown
from pipelines.report.structure import first_components
from pipelines.report.tables import study_tables
from pipelines.report.win_loss import losses, noise, rule, win_loss
from tests.pipelines.support import ROOT, command
from wave.errors import WaveError
from wave.spec import TargetSpec

FILE = ROOT / "pipelines/experiments/fashion_mnist_comparison.toml"
TABLES = sorted(
    path.stem for path in (ROOT / "benchmarks/tables").glob("*.md") if (FILE.parent / f"{path.stem}.toml").is_file()
)
"""The comparisons whose tables are committed."""
SIZES = "sizes=[{embed_dim=96, depth=4}, {embed_dim=64, depth=6}]"
STUDIES = (
    'evaluate.studies=[{name="sizes", methods=["wave", "dct", "ligo", "timm_default"], seeds=[0, 1], steps=[50, 200], '
    f'{SIZES}}}, {{name="paid", methods=["wave"], seeds=[0], {SIZES}}}, '
    f'{{name="direct", methods=["timm_default"], seeds=[0], steps=[200, 3000], {SIZES}}}]'
)
SETTINGS_OF_ALL = (STUDIES, "evaluate.variants=[]", "evaluate.learning_rates=[0.001]")
ACCURACY = {"wave": {0: 0.80, 50: 0.85, 200: 0.87}, "dct": {0: 0.10, 50: 0.853, 200: 0.90}}
DIRECT = {0: 0.1, 50: 0.2, 200: 0.5, 3000: 0.89}


def experiment(folder: Path) -> Experiment:
    where = (f"output={folder / 'run'}", f"evaluate.results={folder / 'rows.jsonl'}")
    return parse(apply_overrides(read_toml(FILE), [*SETTINGS_OF_ALL, *where]))


def rows(folder: Path) -> list[dict[str, Any]]:
    """Of every cell but dct at 64x6 from seed 1; seeds differ by one point."""
    log = ResultsLog(folder / "none", variants(experiment(folder)))
    cells = [(m, seed, (50, 200)) for m in ("wave", "dct", "timm_default") for seed in (0, 1)]
    result: list[dict[str, Any]] = []
    for method, seed, steps in [*cells, ("timm_default", 0, (200, 3000))]:
        for width, depth in ((96, 4), (64, 6)):
            if (method, width, seed) == ("dct", 64, 1):
                continue
            cell = Cell(method, width, depth, seed, 0.001, steps, "fashion-mnist")
            for step in (0, *steps):
                accuracy = ACCURACY.get(method, DIRECT)[step] + 0.01 * seed
                row = {
                    **asdict(cell),
                    "steps": step,
                    "budget": max(steps),
                    "accuracy": accuracy,
                    "seconds": 1.0,
                    "images": 64 * step,
                    "macs": 640 * step,
                }
                stage1 = {"stage1_images": 320_000, "stage1_macs": 3_200_000.0} if method == "wave" else {}
                result.append({**row, **stage1, "key": log.key(cell), "date": "2026-01-02", "machine": "a machine"})
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(tmp_path)))
    return tmp_path


def test_a_table_holds_mean_spread_best_and_what_is_missing(folder: Path) -> None:
    sizes = Evidence(experiment(folder)).studies[0]
    tables = {t.title: t for t in study_tables(sizes)}
    assert list(tables) == ["sizes: at step 0, no training", "sizes: after 50 steps", "sizes: after 200 steps"]
    text = tables["sizes: after 200 steps"].markdown()
    assert "| method | 64 x 6 | 96 x 4 |" in text
    assert "| wave | 87.5 ±0.7 | 87.5 ±0.7 |" in text
    assert "| dct | **90.0 (1 of 2 seeds)** | **90.5 ±0.7** |" in text
    assert "| ligo | cannot: growth only | cannot: growth only |" in text
    assert '<td class="best">90.5 ±0.7</td>' in tables["sizes: after 200 steps"].html()
    assert sizes.mean("dct", 200) == pytest.approx((0.90 + 0.905) / 2)


def test_a_choice_says_what_each_method_sets_and_its_mean_over_the_sizes_that_are_drawn(tmp_path: Path) -> None:
    """24x6 is drawn by none and counts nowhere; what all variants set is not said of each."""
    sizes = "sizes=[{embed_dim=96, depth=4}, {embed_dim=64, depth=6}, {embed_dim=24, depth=6, num_heads=2}]"
    study = f'{{name="pick", methods=["wave_a", "wave_b"], {sizes}, seeds=[0], steps=[0], held_out=true}}'
    sets = {"a": "templates.count=8", "b": "templates.count=16"}
    named = ", ".join(f'{{name="wave_{k}", set=["distil.recipe.tau=2", "{v}"]}}' for k, v in sets.items())
    where = (f"output={tmp_path / 'run'}", f"evaluate.results={tmp_path / 'rows.jsonl'}", "evaluate.learning_rates=[1]")
    settings = (f"evaluate.studies=[{study}]", f"evaluate.variants=[{named}]", *where)
    own = parse(apply_overrides(read_toml(FILE), settings))
    log = ResultsLog(tmp_path / "rows.jsonl", variants(own))
    for method, more in (("wave_a", 0.0), ("wave_b", 0.0123)):
        for width, depth, heads, accuracy in ((96, 4, None, 0.8), (64, 6, None, 0.9), (24, 6, 2, 0.1)):
            if (method, width) != ("wave_b", 64):
                cell = Cell(method, width, depth, 0, 1.0, (0,), "fashion-mnist", held_out=True, num_heads=heads)
                row = {**asdict(cell), "steps": 0, "budget": 0, "accuracy": accuracy + more, "seconds": 0.0}
                log.keep(cell, [row])
    compare(own)
    text = (tmp_path / "run/report/tables.md").read_text()
    assert "### pick: mean of 2 sizes" in text and "| method | what it sets | at step 0 |" in text
    assert "| wave_a | templates.count=8 | 85.00 |" in text and "| wave_b | templates.count=16 | missing |" in text
    assert "after" not in text.split("### pick", 1)[1]


def test_a_study_of_one_method_is_one_table_without_a_best(folder: Path) -> None:
    (table,) = study_tables(Evidence(experiment(folder)).studies[2])
    assert table.markdown().splitlines()[2:] == [
        "| size | after 0 steps | after 200 steps | after 3000 steps |",
        "| --- | ---: | ---: | ---: |",
        "| 64 x 6 | 10.0 | 50.0 | 89.0 |",
        "| 96 x 4 | 10.0 | 50.0 | 89.0 |",
    ]


def test_ligo_has_no_row_before_its_own_steps(folder: Path) -> None:
    found = Evidence(experiment(folder)).studies[0]
    found.cells.sizes.append(TargetSpec(128, 6))
    found.cells.__dict__.pop("reach", None)
    assert found.absent("ligo", TargetSpec(128, 6), 50) == "starts at 100"
    assert found.absent("ligo", TargetSpec(128, 6), 200) == "missing"


def test_losses_are_listed_and_a_difference_within_the_spread_is_level(folder: Path) -> None:
    found = {v.baseline: v for v in win_loss(Evidence(experiment(folder)).studies[0])}
    dct = found["dct"]
    assert (len(dct.won), len(dct.level), len(dct.lost)) == (2, 2, 2)
    assert losses([dct]) == ["dct: 96 x 4 at 200 (+3.0), 64 x 6 at 200 (+2.5)"]
    assert not found["ligo"].lost and not losses([found["timm_default"]])


def test_a_cell_is_judged_once_against_each_baseline(folder: Path) -> None:
    study, judged = Evidence(experiment(folder)).studies[0], {("dct", TargetSpec(96, 4), 200)}
    again = {v.baseline: v for v in win_loss(study, judged)}
    assert losses([again["dct"]]) == ["dct: 64 x 6 at 200 (+2.5)"] and ("dct", TargetSpec(64, 6), 200) in judged
    assert not any(v.won or v.level or v.lost for v in win_loss(study, judged))


@pytest.mark.parametrize(("images", "level"), [(10_000, False), (360, True)])
def test_a_difference_must_be_larger_than_the_noise_on_that_many_images(images: int, level: bool, folder: Path) -> None:
    """One point of difference, from one seed each: much on 10,000 test images, nothing on 360."""
    right = {"wave": round(0.85 * images) + 1, "dct": round(0.86 * images) + 1}
    kept = [r for r in rows(folder) if r["method"] in right and r["seed"] == 0]
    made = [{**row, "accuracy": right[row["method"]] / images} for row in kept]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    study = Evidence(experiment(folder)).studies[0]
    assert study.images == images and noise(study) == pytest.approx(0.25 / images**0.5)
    (dct,) = (against for against in win_loss(study) if against.baseline == "dct")
    assert (len(dct.level), len(dct.lost)) == ((6, 0) if level else (0, 6))
    assert f"on {images:,} test images" in rule(study)


def test_the_break_even_point_counts_stage_1(folder: Path) -> None:
    evidence = Evidence(experiment(folder))
    images, macs = costs(evidence)
    # 320,000 + n * 12,800 < n * 192,000 from n = 2 on; with the ancestor's 512,000 images from n = 5 on
    assert images.break_even() == 2 and images.break_even(with_ancestor=True) == 5
    assert macs.stage1 == 3_200_000 and macs.direct == [640 * 3000] * 2
    table = against_direct(evidence)
    assert table is not None
    assert [cell.text for cell in table.rows[0]] == [
        "64 x 6",
        "80.5 ±0.7",
        "87.5 ±0.7",
        "-8.50",
        "-1.50",
        "50.0",
        "89.0",
    ]


def test_without_the_cost_of_stage_1_no_break_even_is_shown(folder: Path) -> None:
    kept = [{k: v for k, v in row.items() if not k.startswith("stage1")} for row in rows(folder)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert costs(Evidence(experiment(folder))) == []


def test_the_page_loads_nothing_and_says_what_is_missing(folder: Path) -> None:
    (folder / "run").mkdir()
    table = [f"output={folder / 'run'}", f"evaluate.results={folder / 'rows.jsonl'}", *SETTINGS_OF_ALL]
    (path,) = report(str(FILE), table, str(folder / "tables.md"))
    text = path.read_text()
    assert path == folder / "run/report/comparison.html"
    assert "Missing: 1 of the cells of study sizes have not been run." in text and "dct: 96 x 4 at 200 (+3.0)" in text
    links = re.findall(r"(?:src|href)=.(.{5})", text)
    assert links and all(link == "data:" or link.startswith("#part") for link in links)
    assert "<script" not in text and "@import" not in text and "url(" not in text
    pictures = {p.name for p in path.parent.glob("*.png")}
    assert pictures == {"cost.png", "sizes_steps.png"} and text.count("data:image/png") == 2
    whole = (folder / "tables.md").read_text()
    assert whole.startswith("# Comparison: fashion-mnist") and "| image passes | 320 k |" in whole


def test_rows_of_other_settings_are_counted_and_not_shown(folder: Path) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps({**rows(folder)[2], "key": "of other settings", "accuracy": 0.0}) + "\n")
    evidence = Evidence(experiment(folder))
    assert evidence.others == 1
    assert min(row["accuracy"] for row in evidence.rows) > 0.05


def test_layers_of_one_width_share_the_first_models_component_and_scale() -> None:
    generator = np.random.default_rng(0)
    line = np.array([-2.0, 0.0, 1.0, 1.0])
    direction, other = generator.normal(size=6), generator.normal(size=3)
    found = first_components(
        {
            "ancestor": np.outer(line, direction),
            "half": 0.5 * np.outer(line[[0, 3]], direction),
            "narrow": np.outer(line, -other),
        }
    )
    sign = np.sign(found["ancestor"][3])
    assert sign * found["ancestor"] == pytest.approx(line / 2)
    assert sign * found["half"] == pytest.approx(0.5 * line[[0, 3]] / 2)
    assert sign * found["narrow"] == pytest.approx(line / 2)


@pytest.mark.parametrize("name", TABLES)
def test_the_committed_tables_are_those_of_the_committed_results(name: str) -> None:
    """Byte for byte: a table is made by `python -m pipelines report FILE --into benchmarks/tables/NAME.md`."""
    found = Evidence(load(ROOT / f"pipelines/experiments/{name}.toml", ["output=nowhere"]))
    assert markdown(found.experiment.name, sections(found)) == (ROOT / f"benchmarks/tables/{name}.md").read_text()


def test_into_is_a_markdown_file_that_can_be_written(folder: Path) -> None:
    own = experiment(folder)
    with pytest.raises(WaveError, match=r"--into .*tables.txt is not a Markdown file; nearest: .*tables.md"):
        compare(own, str(folder / "tables.txt"))
    (folder / "folder.md").mkdir()
    with pytest.raises(WaveError, match=r"folder.md cannot be written: Is a directory"):
        compare(own, str(folder / "folder.md"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((str(FILE), ["evaluate.results=none.jsonl"]), "none.jsonl: no such file; run: python -m pipelines evaluate"),
        ((str(FILE), ["evaluate.studies=[]", "evaluate.variants=[]"]), r"has no \[\[evaluate.studies\]\] to report on"),
        (("nowhere", ["seed=1"]), "--set has no effect on nowhere"),
        (("nowhere", [], "x.md"), "--into has no effect on nowhere"),
        (("nowhere.toml",), "nowhere.toml: no such file"),
    ],
)
def test_what_cannot_be_reported_is_an_error(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(WaveError, match=text):
        report(*arguments)


def test_an_error_of_the_command_is_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, "report", str(FILE), "--set", "evaluate.results=none.jsonl")
    assert done.returncode == 2 and re.fullmatch("error: none.jsonl: no such file; .*\n", done.stderr), done.stderr


def test_a_folder_that_evaluate_wrote_is_enough(folder: Path) -> None:
    lines = [f"output={folder / 'run'}", f"evaluate.results={folder / 'rows.jsonl'}", *SETTINGS_OF_ALL]
    (folder / "run").mkdir()
    from_file = load(FILE, lines)
    (folder / "run" / SETTINGS).write_text(resolved(from_file))
    assert report(str(folder / "run")) == [folder / "run/report/comparison.html"]
