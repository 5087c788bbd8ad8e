"""The lists of what results depend on: no setting is forgotten, and what is declared reaches the key."""

import pytest

from pipelines.ancestors.record import TRAINED_ANCESTOR_DEPENDS_ON
from pipelines.comparison import keys
from pipelines.comparison.cells import Cell
from pipelines.comparison.variants import variants
from pipelines.config.experiment import Experiment, load
from pipelines.runtime.keys import key_of, settings_at
from pipelines.stages.distil import TEMPLATES_DEPEND_ON
from pipelines.stages.initialise import SIZE_DEPENDS_ON
from tests.pipelines.support import ROOT

FILE = ROOT / "pipelines/experiments/fashion_mnist_comparison.toml"
RUN = {*TRAINED_ANCESTOR_DEPENDS_ON, *TEMPLATES_DEPEND_ON, *SIZE_DEPENDS_ON}
COMPARISON = {
    *keys.EVERY_CELL_DEPENDS_ON,
    *keys.DISTILLED_CELL_DEPENDS_ON,
    *keys.TRANSFER_CELL_DEPENDS_ON,
    *keys.BASELINE_STAGE1_DEPENDS_ON,
    *keys.OUR_CELL_DEPENDS_ON,
    *keys.OUR_TRAINED_SCALERS_DEPEND_ON,
}
ELSEWHERE = {
    "distil": {"workers", "use_gpu", "resources_per_worker", "max_failures"},  # where it runs
    "initialise": {"resources", "max_failures"},
    "data": {"workers", "in_memory"}
    | {
        "path",
        "convert",
        "source",
        "image_size",
        "held_out",
        "test_fraction",
        "skip_bad",
    },  # in the data set's digest or its name
    "evaluate": {"cpus", "gpus", "results"}
    | {"studies", "variants", "learning_rates"},  # in the cell, or in the variant's own settings
}
"""Settings of each section that change no result, or that a key holds in another way."""
ONLY_STAGE_2 = {"subset", "teacher_logits", "compare_scratch"}


@pytest.mark.parametrize("section", ["templates", "distil", "initialise", "data", "evaluate", "ancestor"])
def test_every_setting_is_part_of_a_key_or_is_named_here(section: str) -> None:
    declared = RUN | COMPARISON
    if section in declared:
        return
    fields = set(Experiment.model_fields[section].annotation.model_fields)  # type: ignore
    fields -= ELSEWHERE[section]
    found = {f.partition(".")[2].replace("anneals", "annealing") for f in declared if f.startswith(f"{section}.")}
    assert not fields - found
    if section == "initialise":
        ours = {f.partition(".")[2] for f in COMPARISON if f.startswith("initialise.")}
        assert fields - ours == ONLY_STAGE_2


CHANGES = {
    "seed": "seed=7",
    "ancestor": "ancestor.recipe.steps=7000",
    "templates": "templates.count=8",
    "data.held_out": "data.held_out=7",
    "data.augment": "data.augment=rand-m9-mstd0.5-inc1",
    "data.hflip": "data.hflip=0.5",
    "data.random_crop": "data.random_crop=0.5",
    "data.color_jitter": "data.color_jitter=0.5",
    "data.reprob": "data.reprob=0.5",
    "data.name": "data.path=elsewhere/other",
    "evaluate.batch_size": "evaluate.batch_size=7",
    "evaluate.train_images": "evaluate.train_images=7",
    "evaluate.test_images": "evaluate.test_images=7",
    "evaluate.scaler_steps": "evaluate.scaler_steps=7",
    "distil.recipe": "distil.recipe.steps=7000",
    "distil.losses": "distil.recipe.tau=7",
    "distil.anneals": "distil.annealing=false",
    "distil.sizes": "distil.sizes.depth=[3]",
    "distil.sizes_per_step": "distil.sizes_per_step=2",
    "distil.cost_power": "distil.cost_power=0.5",
    "distil.auxiliary": "distil.auxiliary=true",
    "distil.feature_weight": "distil.feature_weight=1",
    "initialise.depth": "initialise.depth=linear",
    "initialise.width": "initialise.width=even",
    "initialise.width_scale": "initialise.width_scale=none",
    "initialise.symmetry": "initialise.symmetry=noise",
    "initialise.symmetry_strength": "initialise.symmetry_strength=0.2",
    "initialise.scalers": "initialise.scalers=random",
    "initialise.recipe": "initialise.recipe.lr=7e-4",
}
"""Another value of each field that a cell depends on."""
EVERY = ["evaluate.studies=[]", "evaluate.variants=[]", "initialise.teacher_logits=false", "initialise.subset=0"]


@pytest.mark.parametrize("field", sorted(COMPARISON))
def test_a_declared_field_reaches_the_keys_of_the_cells_that_depend_on_it(field: str) -> None:
    """Cells that do not depend on it keep their keys."""

    def found(*overrides: str) -> dict[str, str]:
        experiments = variants(load(FILE, [*EVERY, *overrides]))
        cells = {
            "dct": Cell("dct", 96, 4, 0, 1e-3, (50,), "fashion-mnist"),
            "transfer": Cell("dct", 96, 4, 0, 1e-3, (50,), "digits-28", transfer=True),
            "distilled": Cell("dct", 96, 4, 0, 1e-3, (50,), "fashion-mnist", distilled=True),
            "tleg": Cell("tleg", 96, 4, 0, 1e-3, (50,), "fashion-mnist"),
            "wave": Cell("wave", 96, 4, 0, 1e-3, (50,), "fashion-mnist"),
        }
        return {name: keys.cell_key(cell, experiments) for name, cell in cells.items()}

    depends = {
        name
        for name, fields in {
            "dct": keys.EVERY_CELL_DEPENDS_ON,
            "transfer": (*keys.EVERY_CELL_DEPENDS_ON, *keys.TRANSFER_CELL_DEPENDS_ON),
            "distilled": (*keys.EVERY_CELL_DEPENDS_ON, *keys.DISTILLED_CELL_DEPENDS_ON),
            "tleg": (*keys.EVERY_CELL_DEPENDS_ON, *keys.BASELINE_STAGE1_DEPENDS_ON),
            "wave": (*keys.EVERY_CELL_DEPENDS_ON, *keys.OUR_CELL_DEPENDS_ON),
        }.items()
        if field in fields
    }
    if field == "distil.losses":
        depends |= {"tleg", "wave"}  # as parts of distil.recipe
    before: tuple[str, ...] = ()
    if field == "initialise.recipe":
        before, depends = ("evaluate.scaler_steps=5",), {"wave"}
    first, second = found(*before), found(*before, CHANGES[field])
    assert {name for name in first if first[name] != second[name]} == depends


def test_a_key_refuses_what_has_no_lasting_text() -> None:
    with pytest.raises(TypeError):
        key_of("cell", object())
    assert key_of("cell", settings_at(load(FILE), ["seed"])) == key_of("cell", {"seed": 0})
    assert key_of("cell", {"seed": 0}) != key_of("size", {"seed": 0})
