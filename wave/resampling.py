"""Resampling: the options by which a size is read off the auxiliary model."""

from dataclasses import dataclass
from typing import Literal, get_args

from .errors import WaveError

Depth = Literal["nearest", "linear", "identity"]
Width = Literal["leading", "even"]
WidthScale = Literal["auto", "sqrt", "copies", "none"]
Symmetry = Literal["none", "split", "noise"]


@dataclass(frozen=True)
class Resampling:
    """How a size is read off the auxiliary model.

    ``depth``: ``nearest`` layer, ``linear`` interpolation between neighbours, or ``identity`` layers (proj and fc2
    zero) between the copied ones when growing. ``width``: narrow sizes have the ``leading`` blocks, which of a
    canonical ancestor (:mod:`wave.canonical`) are the most important ones, and wide sizes copies of the leading ones
    behind all; or blocks are selected and copied ``even``ly. ``width_scale``: what the reading side of every matrix is
    multiplied by when the width changes: ``copies`` divides by the number of copies of a block, which preserves the
    function exactly for whole multiples (order ``tile`` only: interleaved blocks run across heads); ``sqrt`` multiplies
    by sqrt(D_auxiliary / D), as a norm does whose leading channels carry nearly all; ``auto`` takes ``copies`` when
    growing and ``sqrt`` when shrinking; ``none`` is one. ``symmetry``: copies made by growing stay identical under
    training unless they are ``split`` unequally on the reading side (as in LEMON; the function is kept) or get
    ``noise``; ``strength`` is relative, 0 to 1. The defaults are measured: docs/tried.md.
    """

    depth: Depth = "nearest"
    width: Width = "leading"
    width_scale: WidthScale = "auto"
    symmetry: Symmetry = "split"
    strength: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        options = (("depth", Depth), ("width", Width), ("width_scale", WidthScale), ("symmetry", Symmetry))
        for name, allowed in options:
            if getattr(self, name) not in get_args(allowed):
                raise WaveError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(get_args(allowed))}")
        if not 0 <= self.strength <= 1:
            raise WaveError(f"strength={self.strength} is not between 0 and 1")
