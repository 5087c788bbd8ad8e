"""The section [templates]: how many weight templates, of which block, and how they start."""

from typing import Annotated, Literal, Self, cast

from pydantic import model_validator

from pipelines.config.fields import _COUNT, _KINDS, _PAIR, Block, Count
from pipelines.config.sizes import Size
from pipelines.config.validation import Says, Section, SettingError
from wave.kron import Order
from wave.spec import KINDS, Kind
from wave.template_spec import TemplateSpec


class TemplateSettings(Section):
    """How many templates there are, of which block size, and how they start."""

    count: Annotated[Count | dict[str, Count], Says(f"should be {_COUNT}, or a table of one for each of {_KINDS}")] = 32
    """Templates per kind of matrix: one number, or a table for `qkv`, `proj`, `fc1` and `fc2`. More
    templates cost parameters; 64 of 16x16 were enough on Fashion-MNIST."""
    block: (
        Annotated[Block | dict[str, Block], Says(f"should be {_PAIR}, or a table of one for each of {_KINDS}")] | None
    ) = None
    """Rows and columns of a template: one pair, or a table per kind. Default: the ancestor's
    head_dim twice, so that blocks never cut a head. Larger blocks need fewer scalers."""
    order: Order = "tile"
    """Order of the Kronecker product. `"tile"` keeps each template a contiguous block and can crop;
    `"interleave"` shuffles rows and columns and was worse."""
    start: Literal["canonical", "svd", "random"] = "canonical"
    """Where templates start: the ancestor in `"canonical"` form (best), the ancestor as it is
    (`"svd"`), or at `"random"` as in the paper."""
    auxiliary: Size | None = None
    """Size of the model that is distilled and that others are resampled from. Default: the
    ancestor's; a smaller one costs less."""

    @model_validator(mode="after")
    def _all_kinds(self) -> Self:
        for key in ("count", "block"):
            table = getattr(self, key)
            if not isinstance(table, dict):
                continue
            if foreign := [kind for kind in table if kind not in KINDS]:
                raise SettingError(f"{key}.{foreign[0]}", f"is not a kind of matrix; name all of {_KINDS}")
            if absent := [kind for kind in KINDS if kind not in table]:
                raise SettingError(key, f"lacks {', '.join(absent)}; name all of {_KINDS}")
        return self

    def spec(self, head_dim: int, mlp_ratio: float) -> TemplateSpec:
        """The specification for an ancestor's head_dim and mlp_ratio; raises :class:`WaveError`."""
        counts = self.count if isinstance(self.count, dict) else dict.fromkeys(KINDS, self.count)
        blocks = (
            self.block if isinstance(self.block, dict) else dict.fromkeys(KINDS, self.block or (head_dim, head_dim))
        )
        by_kind = cast(dict[Kind, tuple[int, int]], blocks), cast(dict[Kind, int], counts)
        return TemplateSpec(*by_kind, head_dim, mlp_ratio, self.order)
