"""What methods start from: templates shared between variants, what rows say of stage 1, and the committed files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
from timm.models.vision_transformer import VisionTransformer

from pipelines.comparison import baselines, run_cell
from pipelines.comparison.cells import Cell
from pipelines.comparison.forecast import stages_cost
from pipelines.comparison.results_log import ResultsLog
from pipelines.comparison.starting_points import StartingPoints
from pipelines.comparison.study_cells import StudyCells
from pipelines.comparison.variants import variants
from pipelines.config.data import Data
from pipelines.config.experiment import Experiment, load
from pipelines.data.convert.convert import prepared
from pipelines.runtime.threads import side_by_side
from pipelines.runtime.workspace import Workspace
from pipelines.stages import distil, preflight
from pipelines.stages.cost import baseline_steps
from tests.pipelines.support import ROOT
from wave.errors import WaveError
from wave.export import save_model
from wave.family import Family
from wave.spec import TargetSpec
from wave.train import Trainer

FILE = ROOT / "pipelines/experiments/fashion_mnist_comparison.toml"
OTHER = ROOT / "pipelines/experiments/digits_to_fashion.toml"
TRIED = [ROOT / f"pipelines/experiments/fashion_mnist_{name}.toml" for name in ("tried", "directions", "larger")]
FAMILY = {"embed_dim": 96, "depth": 6, "num_heads": 6, "patch_size": 7, "img_size": 28, "in_chans": 1}


@pytest.fixture(scope="module")
def family() -> Family:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **FAMILY)
    assert isinstance(model, VisionTransformer)
    return Family.of(model)


def stages(folder: Path, experiment: Experiment, family: Family) -> StartingPoints:
    dataset = prepared(Data(path=str(folder / "digits-28"), convert="digits", image_size=28))
    origin = {"key": "ancestor", "parameters": 678_730}
    return StartingPoints(
        variants(experiment),
        Workspace(folder / "run"),
        dataset=dataset,
        family=family,
        origin=origin,
    )


def test_variants_with_equal_templates_share_them(tmp_path: Path, family: Family) -> None:
    here = stages(tmp_path, load(FILE), family)
    shared = {m for m, owner in here.owners.items() if owner == "wave_short"}
    assert shared == {"wave_short", "wave_scalers_trained", "wave_random", "wave_random_trained"}
    assert all(owner == m for m, owner in here.owners.items() if m not in shared)
    folders = {m: here.place(m, here.dataset).workspace.templates for m in ("wave", "wave_random", "wave_n46", "dct")}
    assert folders["wave"] == folders["dct"] == tmp_path / "run/templates"
    assert folders["wave_random"] == tmp_path / "run/variants/wave_short/templates"
    assert folders["wave_n46"] == tmp_path / "run/variants/wave_n46/templates"


def test_rows_say_what_stage_1_cost(tmp_path: Path, family: Family) -> None:
    experiment = load(FILE, ["distil.sizes={embed_dim=[48], depth=[3]}"])
    here = stages(tmp_path, experiment, family)
    here.shares["wave"] = {"share": 0.1, "share_all": 0.4}
    ours, tleg = here.facts("wave"), here.facts("tleg")
    recipe = experiment.distil.recipe
    images = (recipe.steps or 0) * recipe.batch_size  # one size a step
    assert ours["stage1_images"] == tleg["stage1_images"] == images
    assert ours["stage1_macs"] < tleg["stage1_macs"]  # sizes smaller than the ancestor's: equal image passes
    assert ours["ancestor_dataset"] == "digits-28" and ours["share"] == 0.1
    # all at 96x6: three passes of training for each image; the teacher reads the 1,437 digits once
    assert tleg["stage1_macs"] == pytest.approx(11_900_000 * (3 * images + 1437), rel=0.1)
    assert 0.3 < tleg["share_all"] < 0.5  # two blocks of six, and what is not a block
    assert here.facts("dct") == {"ancestor_dataset": "digits-28"}


@pytest.mark.parametrize("wanted", [True, False])
def test_stage_1_baselines_and_distilled_cells_anneal_alike(
    wanted: bool, tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [f"distil.recipe.{k}" for k in ("steps=2", "warmup_steps=0", "log_every=1", "batch_size=8")]
    small = ["templates.start=svd", "distil.sizes={embed_dim=[48], depth=[2]}", "evaluate.batch_size=8"]
    own = load(FILE, [*few, *small, f"distil.annealing={str(wanted).lower()}"])
    here = stages(tmp_path, own, family)
    save_model(family.create(family.size), here.workspace.ancestor, here.dataset.mean, here.dataset.std)
    found: list[bool] = []

    class Watched(Trainer):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            found.append(self.annealing)

    for module in (run_cell, baselines):
        monkeypatch.setattr(module, "Trainer", Watched)
        monkeypatch.setattr(module, "use_assigned_cpus", lambda: None)
        monkeypatch.setattr(module, "assigned_device", lambda: "cpu")
    place = here.place("timm_default", here.dataset)
    images, labels = here.dataset.arrays("train", limit=16)
    seen = here.dataset.arrays("test", limit=16)
    arrays = {"train_images": images, "train_labels": labels, "test_images": seen[0], "test_labels": seen[1]}
    plain = Cell("timm_default", 48, 2, 0, 1e-3, (1, 2), here.dataset.path.name)
    for one in (plain, replace(plain, distilled=True)):
        assert [row["steps"] for row in run_cell.run_cell(place, arrays, one)] == [0, 1, 2]
    baselines.train_baseline(place, "tleg")
    assert found == [False, wanted, wanted]
    assert distil._build(own, here.dataset, here.workspace).annealing is wanted


@pytest.mark.parametrize(("widths", "decides"), [([32, 48], "stage1_images"), ([160, 192], "stage1_macs")])
def test_a_baseline_makes_no_fewer_image_passes_or_operations_than_ours(
    widths: list[int], decides: str, tmp_path: Path, family: Family
) -> None:
    here = stages(tmp_path, load(FILE, [f"distil.sizes.embed_dim={widths}"]), family)
    here.shares["wave"] = {"share": 0.1, "share_all": 0.4}
    ours, tleg = here.facts("wave"), here.facts("tleg")
    more = {k: tleg[k] / ours[k] for k in ("stage1_images", "stage1_macs")}
    assert 1 <= more.pop(decides) < 1.001  # by less than a step's
    assert all(ratio > 1.001 for ratio in more.values())


def test_the_stages_of_variants_and_baselines_are_counted_once(family: Family, tmp_path: Path) -> None:
    data = stages(tmp_path, load(FILE), family).dataset
    (variants_name, images, work), (baselines_name, more, _) = stages_cost(variants(load(FILE)), family, data)
    assert (variants_name, baselines_name) == ("stage 1 of 21 variants", "stage 1 of 3 baselines")
    assert images == (5 * 9600 + 2 * 2 * 9600 + 3 * 1230 + 7340 + 8 * 1200 + 965 + 2) * 32
    assert more == 3 * baseline_steps(load(FILE), family, data) * 32 and work > 0
    assert stages_cost(variants(load(FILE, ["evaluate.studies=[]"])), family, data) == []


@pytest.mark.parametrize("file", [FILE, OTHER, *TRIED])
def test_every_size_of_every_study_can_be_built(file: Path, family: Family) -> None:
    preflight.check_comparison(variants(load(file)), family, 55_000)


@pytest.mark.parametrize("file", [FILE, OTHER, *TRIED], ids=lambda file: file.stem)
def test_every_cell_of_a_committed_comparison_has_its_rows(file: Path) -> None:
    """A setting that came or went would give them other keys."""
    experiment = load(file)
    log = ResultsLog(ROOT / experiment.evaluate.results, variants(experiment))
    source = TargetSpec(*(int(str(experiment.ancestor.model_args[k])) for k in ("embed_dim", "depth")))
    for study in experiment.evaluate.studies:
        name = (study.data or experiment.data).name
        rates = experiment.evaluate.learning_rates
        found = StudyCells(study, source, rates=rates, dataset=name, transfer=study.data is not None)
        cells = [*found.measured(found.best_rates(log)), *found.needed_trials()]
        assert not [str(cell) for cell in cells if log.key(cell) not in log.kept], study.name


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "name='wave_x', set=['templates.block=[32, 32]', 'templates.count=4']",
            "variants: wave_x: distil.sizes: d048-l03: embed_dim=48",
        ),
        ("name='wave_x', set=['templates.count=300']", "variants: wave_x: templates: qkv: 300 templates of 16x16"),
        (
            "name='wave_x', set=['templates.block=[48, 48]', 'templates.count=4', 'distil.sizes=']",
            "studies: one: wave_x: d064-l06: embed_dim=64",
        ),
    ],
)
def test_a_variant_that_cannot_be_built_is_one_line(override: str, text: str, family: Family) -> None:
    study = '{name="one", methods=["wave_x"], sizes=[{embed_dim=64, depth=6}]}'
    whole = "templates.order=interleave"  # blocks that cannot be cropped
    found = load(FILE, [f"evaluate.variants=[{{{override}}}]", f"evaluate.studies=[{study}]", whole])
    with pytest.raises(WaveError, match=text):
        preflight.check_comparison(variants(found), family, 55_000)


def test_transfer_runs_both_ways_with_the_same_methods_and_sizes() -> None:
    there, back = load(FILE), load(OTHER)
    studies = {s.name: s for s in [*there.evaluate.studies, *back.evaluate.studies]}
    one, other = studies["transfer_digits"], studies["transfer_fashion"]
    assert one.methods == other.methods and one.sizes == other.sizes
    assert one.methods == [m for m in studies["sizes"].methods if not m.startswith("wave_")]
    assert one.data is not None and other.data is not None
    assert (one.data.path, other.data.path) == (back.data.path, there.data.path)
    assert there.name != back.name and there.ancestor.model_args == back.ancestor.model_args
    assert [s.sizes for s in there.evaluate.studies if s.name in ("paid", "direct")].count(studies["paid"].sizes) == 2


def test_works_side_by_side_are_all_done_and_whatever_one_raises_is_raised() -> None:
    done: list[int] = []
    side_by_side([lambda n=n: done.append(n) for n in range(7)], 3)
    assert sorted(done) == list(range(7))
    with pytest.raises(IndexError, match="its own"):
        side_by_side([lambda: done.append(7), lambda: _fail("its own"), lambda: done.append(8)])
    assert done[-1] == 7  # nothing is begun after it


def _fail(text: str) -> None:
    raise IndexError(text)
