"""TemplateSpec: which templates exist, and which sizes they can build."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from .errors import WaveError
from .kron import Order
from .shape import Axis, Shape, heads_of, least_heads
from .spec import AXES, KINDS, Kind, TargetSpec
from .typed import json_object

WIDEST = 10000
"""In template heads: how far the search for the nearest valid width goes."""


@dataclass(frozen=True)
class TemplateSpec:
    """The templates of a family of models.

    Args:
        blocks: Shape ``(a, b)`` of the templates of each kind.
        counts: Number N of templates of each kind, at most ``a*b``.
        head_dim: Channels of one head, in every size that does not say otherwise.
        mlp_ratio: Hidden units per channel, in every size that does not say otherwise.
        order: Which factor of the Kronecker products is the outer one (:mod:`wave.kron`).

    Raises:
        WaveError: A block or a count is impossible.

    >>> spec = TemplateSpec.uniform(head_dim=16, count=64)
    >>> spec.num_parameters()
    65536
    >>> spec.num_scalers(TargetSpec(96, 6))
    165888
    """

    blocks: Mapping[Kind, tuple[int, int]]
    counts: Mapping[Kind, int]
    head_dim: int
    mlp_ratio: float = 4.0
    order: Order = "tile"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            choices = ", ".join(get_args(Order))
            raise WaveError(f"order={self.order!r} is unknown; use one of {choices}")
        if self.head_dim < 1 or not 0 < self.mlp_ratio < math.inf:
            raise WaveError(
                f"head_dim={self.head_dim} and mlp_ratio={self.mlp_ratio} must be positive"
            )
        for label, table in (("blocks", self.blocks), ("counts", self.counts)):
            if set(table) != set(KINDS):
                raise WaveError(f"{label} names {sorted(table)}; it needs exactly {list(KINDS)}")
        for kind in KINDS:
            a, b = self.blocks[kind]
            count = self.counts[kind]
            if min(a, b, count) < 1:
                raise WaveError(f"{kind}: block {a}x{b} and count {count} must be at least 1")
            if count > a * b:
                raise WaveError(
                    f"{kind}: {count} templates of {a}x{b}; "
                    f"{a * b} already build every weight exactly"
                )

    @classmethod
    def uniform(
        cls,
        head_dim: int,
        count: int,
        block: int | None = None,
        mlp_ratio: float = 4.0,
        order: Order = "tile",
    ) -> "TemplateSpec":
        """Give all four kinds the same count and the same square block, by default one head."""
        side = block or head_dim
        blocks: dict[Kind, tuple[int, int]] = dict.fromkeys(KINDS, (side, side))
        counts: dict[Kind, int] = dict.fromkeys(KINDS, count)
        return cls(blocks, counts, head_dim=head_dim, mlp_ratio=mlp_ratio, order=order)

    def shape(self, size: TargetSpec) -> Shape:
        """Return the lengths of a model's axes.

        Raises:
            WaveError: The width is not a whole number of heads.
        """
        heads = heads_of(size.embed_dim, size.num_heads, head_dim=self.head_dim)
        ratio = self.mlp_ratio if size.mlp_ratio is None else size.mlp_ratio
        hidden = int(size.embed_dim * ratio)
        return Shape(size.embed_dim, heads, head_dim=size.embed_dim // heads, hidden=hidden)

    def enclosing(self, shape: Shape) -> Shape:
        """Return the smallest shape of whole blocks and template heads that holds ``shape``.

        That is ``shape`` itself where nothing has to be cropped. Otherwise the heads together need
        not be as wide as the residual stream.
        """
        if self._fits(shape):
            return shape
        unit = self.unit("embed")
        attn = _round_up(shape.heads * self.head_dim, unit)
        return Shape(
            embed=_round_up(shape.embed, unit),
            heads=attn // self.head_dim,
            head_dim=self.head_dim,
            hidden=_round_up(shape.hidden, self.unit("hidden")),
        )

    def grid(self, kind: Kind, shape: Shape) -> tuple[int, int]:
        """Return the shape ``(p, q)`` of the scalers of one kind in one layer.

        Raises:
            WaveError: These templates cannot build that shape (:meth:`check`).
        """
        self.check(shape)
        outer = self.enclosing(shape)
        a, b = self.blocks[kind]
        rows, columns = AXES[kind]
        return outer.length(rows) // a, outer.length(columns) // b

    def check(self, shape: Shape, whole: bool = False) -> None:
        """Make sure that these templates can build a shape.

        Args:
            shape: The lengths of a model's axes.
            whole: Whether it must be built without cropping. The auxiliary model must be, since
                other sizes are read off its blocks.

        Raises:
            WaveError: They cannot; the message names the nearest valid widths.
        """
        if shape.head_dim > self.head_dim:
            least = least_heads(shape.embed, self.head_dim)
            raise WaveError(
                f"head_dim is {shape.head_dim}; these templates were made for {self.head_dim}, and "
                f"heads can only be cropped: embed_dim={shape.embed} needs num_heads={least} "
                "or more"
            )
        can_crop = not whole and self.order == "tile"
        if can_crop or self._fits(shape):
            return
        if shape.embed % self.unit("embed") == 0 and shape.head_dim == self.head_dim:
            raise WaveError(self._hidden_do_not_fit(shape))
        raise WaveError(self._width_does_not_fit(shape, whole))

    def nearest(self, embed_dim: int) -> list[int]:
        """Return the nearest widths below and above that are built without cropping."""
        start = embed_dim // self.head_dim
        below = next(self._widths(range(start, 0, -1)), None)
        above = next(self._widths(range(start + 1, WIDEST)), None)
        return [width for width in (below, above) if width is not None]

    def unit(self, axis: Axis) -> int:
        """Return how many entries of an axis one step of the width map moves together.

        The map must cut through no block of any kind, and along the stream through no head. All
        axes but the hidden units share one unit, since what one matrix writes another reads.
        """
        hidden = axis == "hidden"
        sides = [side for name, side in self._sides() if (name == "hidden") == hidden]
        return math.lcm(*sides) if hidden else math.lcm(self.head_dim, *sides)

    def num_parameters(self) -> int:
        """Return the number of entries of all templates together."""
        return sum(self.counts[kind] * math.prod(self.blocks[kind]) for kind in KINDS)

    def num_scalers(self, target: TargetSpec) -> int:
        """Return the number of scalers in all layers of one model."""
        shape = self.shape(target)
        per_layer = sum(self.counts[kind] * math.prod(self.grid(kind, shape)) for kind in KINDS)
        return target.depth * per_layer

    def to_json(self) -> dict[str, object]:
        """Return plain JSON types; :meth:`from_json` is the inverse."""
        return {
            "blocks": {kind: list(self.blocks[kind]) for kind in KINDS},
            "counts": {kind: self.counts[kind] for kind in KINDS},
            "head_dim": self.head_dim,
            "mlp_ratio": self.mlp_ratio,
            "order": self.order,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "TemplateSpec":
        """Read what :meth:`to_json` wrote.

        Raises:
            WaveError: A field is missing, of a wrong type or impossible.
        """
        try:
            sides, counts = json_object(data["blocks"]), json_object(data["counts"])
            blocks = {kind: (a, b) for kind, (a, b) in sides.items()}
            numbers = [*(side for block in blocks.values() for side in block), *counts.values()]
            if not all(type(number) is int for number in numbers):
                raise TypeError("blocks and counts must be whole numbers")
            head_dim, ratio = data["head_dim"], data["mlp_ratio"]
            if type(head_dim) is not int or not isinstance(ratio, int | float):
                raise TypeError("head_dim and mlp_ratio must be numbers")
            rules = {"head_dim": head_dim, "mlp_ratio": float(ratio), "order": data["order"]}
            return cls(**json_object({"blocks": blocks, "counts": counts, **rules}))
        except WaveError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise WaveError(f"template specification is not valid: {error!r}") from None

    def _sides(self) -> Iterator[tuple[Axis, int]]:
        """Every axis that a block of some kind lies along, with the block's side there."""
        for kind in KINDS:
            yield from zip(AXES[kind], self.blocks[kind], strict=True)

    def _fits(self, shape: Shape) -> bool:
        """Whether whole blocks and template heads build a shape without cropping."""
        whole = all(shape.length(axis) % side == 0 for axis, side in self._sides())
        return whole and shape.head_dim == self.head_dim

    def _widths(self, heads: range) -> Iterator[int]:
        """The widths of so many template heads that are built without cropping."""
        for count in heads:
            width = count * self.head_dim
            if self._fits(self.shape(TargetSpec(width, 1))):
                yield width

    def _hidden_do_not_fit(self, shape: Shape) -> str:
        nearest = " and ".join(map(str, self.nearest(shape.embed)))
        sides = " and ".join(map(str, sorted({self.blocks["fc1"][0], self.blocks["fc2"][1]})))
        return (
            f"embed_dim={shape.embed} with mlp_ratio={shape.hidden / shape.embed:g} has "
            f"{shape.hidden} hidden channels, no multiple of the blocks' {sides}: "
            "choose blocks of fc1 and fc2 that divide it"
        ) + (f", or the nearest valid widths: {nearest}" if nearest else "")

    def _width_does_not_fit(self, shape: Shape, whole: bool) -> str:
        nearest = " and ".join(map(str, self.nearest(shape.embed)))
        blocks = ", ".join(f"{a}x{b}" for a, b in sorted(set(self.blocks.values())))
        other = shape.head_dim != self.head_dim
        heads = f", {shape.heads} heads of {shape.head_dim}" if other else ""
        works = f"nearest valid widths: {nearest}" if nearest else "no width below 10000 can"
        crop = (
            "" if whole else f"; order={self.order} cannot crop whole blocks to it, order=tile can"
        )
        return (
            f"embed_dim={shape.embed}{heads} cannot be built from blocks {blocks} with "
            f"head_dim={self.head_dim}; {works}{crop}"
        )


def _round_up(length: int, unit: int) -> int:
    return -(-length // unit) * unit
