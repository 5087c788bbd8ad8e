"""The baselines: every other way we know to start a ViT of some size.

Each is a :class:`Baseline`, which also says which sizes it reaches.

>>> from wave import TargetSpec
>>> BASELINES["ligo"].reach(TargetSpec(96, 6), TargetSpec(64, 6))
'growth only'
"""

from collections.abc import Mapping

from . import (
    dct,
    heur_lg,
    kaiming,
    ligo,
    mimetic,
    shared_block,
    sws,
    timm_default,
    tleg,
    wavelet,
    weight_selection,
)
from .base import Baseline
from .stage1 import Stage1

BASELINES: Mapping[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        timm_default.BASELINE,
        kaiming.BASELINE,
        mimetic.BASELINE,
        weight_selection.BASELINE,
        weight_selection.CLASSIFIER,
        weight_selection.HEADWISE,
        ligo.BASELINE,
        tleg.BASELINE,
        sws.BASELINE,
        heur_lg.BASELINE,
        shared_block.BASELINE,
        dct.BASELINE,
        dct.SCALED,
        wavelet.BASELINE,
    )
}
"""Every baseline by its name in tables and results."""

__all__ = ["BASELINES", "Baseline", "Stage1"]
