"""A cell of the comparison: one method, size, seed and learning rate, and how its rows name them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pipelines.runtime.workspace import Workspace
from wave.baselines import BASELINES
from wave.spec import TargetSpec

OURS = "wave"


@dataclass(frozen=True)
class Cell:
    """What identifies one training.

    ``transfer`` cells draw the classifier anew, since ``dataset`` is not the ancestor's.
    ``held_out`` cells are measured on the images that nothing trains on. ``distilled`` cells are
    trained with the losses of stage 1. ``num_heads`` and ``mlp_ratio`` are None where the size has
    the ancestor's.
    """

    method: str
    embed_dim: int
    depth: int
    seed: int
    lr: float
    steps: tuple[int, ...]
    dataset: str
    transfer: bool = False
    held_out: bool = False
    distilled: bool = False
    num_heads: int | None = None
    mlp_ratio: float | None = None

    def __str__(self) -> str:
        size, steps = self.target.name, max(self.steps)
        return f"{self.method} {size} seed {self.seed} lr {self.lr:g}, {steps} steps"

    @property
    def target(self) -> TargetSpec:
        return TargetSpec(self.embed_dim, self.depth, num_heads=self.num_heads, mlp_ratio=self.mlp_ratio)


class Place(NamedTuple):
    """Where a cell finds things, as plain types that travel to a worker."""

    settings: dict[str, Any]
    """The experiment of its method."""
    workspace: Workspace
    data: str
    """The folder of the data set that it is trained on."""
    side: int | None = None
    """The pixels that models see, where its files do not say it."""


def named(cell: Cell) -> dict[str, Any]:
    """A cell as its rows have it: without heads and MLP where they are the ancestor's."""
    return {k: v for k, v in asdict(cell).items() if v is not None}


def size_of(row: Mapping[str, Any]) -> TargetSpec:
    """The size of a row's cell."""
    shape = {k: row[k] for k in ("num_heads", "mlp_ratio") if k in row}
    return TargetSpec(row["embed_dim"], row["depth"], **shape)


def is_ours(method: str) -> bool:
    """Whether a method is ours or a variant of it."""
    return method == OURS or method.startswith(f"{OURS}_")


def unreachable(method: str, source: TargetSpec, target: TargetSpec) -> str | None:
    """Why a method cannot make a size from the ancestor's, or None."""
    return None if is_ours(method) else BASELINES[method].reach(source, target)
