"""What a cell of the comparison, and a baseline's stage 1, depends on."""

from collections.abc import Mapping
from dataclasses import asdict

from pipelines.comparison.cells import Cell, is_ours
from pipelines.config.experiment import Experiment
from pipelines.runtime.keys import IMAGE_CHANGES, key_of, settings_at
from pipelines.stages.distil import STAGE1_DEPENDS_ON, TEMPLATES_DEPEND_ON
from wave.baselines import BASELINES

EVERY_CELL_DEPENDS_ON = (
    "seed",
    "ancestor",
    "data.held_out",
    *IMAGE_CHANGES,
    "evaluate.batch_size",
    "evaluate.train_images",
    "evaluate.test_images",
)
"""The comparison's own settings; see :mod:`pipelines.runtime.keys`."""
DISTILLED_CELL_DEPENDS_ON = ("distil.losses", "distil.anneals")
"""Besides, those of a cell that is trained with the losses of stage 1."""
TRANSFER_CELL_DEPENDS_ON = ("data.name",)
"""Besides, those of a cell on other data: the ancestor's data are not the cell's own."""
BASELINE_STAGE1_DEPENDS_ON = STAGE1_DEPENDS_ON
"""Besides, those of a baseline with a stage 1, whose length and losses are those of ours."""
OUR_CELL_DEPENDS_ON = (*TEMPLATES_DEPEND_ON, "initialise.scalers", "evaluate.scaler_steps")
"""Settings of our method or its variant."""
OUR_TRAINED_SCALERS_DEPEND_ON = ("initialise.recipe",)
"""Besides, those of a variant that spends steps on scalers."""


def cell_key(cell: Cell, experiments: Mapping[str, Experiment]) -> str:
    """The key of a cell's rows; ``experiments`` are by method, "" is the comparison's own."""
    own = [*EVERY_CELL_DEPENDS_ON]
    method: dict[str, object] = {}
    if cell.distilled:
        own += DISTILLED_CELL_DEPENDS_ON
    if cell.transfer:
        own += TRANSFER_CELL_DEPENDS_ON
    if is_ours(cell.method):
        variant = experiments[cell.method]
        method = settings_at(variant, OUR_CELL_DEPENDS_ON)
        if variant.evaluate.scaler_steps:
            method |= settings_at(variant, OUR_TRAINED_SCALERS_DEPEND_ON)
    elif BASELINES[cell.method].stage1 is not None:
        own += BASELINE_STAGE1_DEPENDS_ON
    return key_of("cell", asdict(cell), settings_at(experiments[""], own), method)
