"""Shapes: which templates exist, which sizes they can build, and every rule between the two."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, cast, get_args

from .errors import WaveError
from .kron import Order
from .shape import Axis, Shape, heads_of, least_heads

Kind = Literal["qkv", "proj", "fc1", "fc2"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AXES: Mapping[Kind, tuple[Axis, Axis]] = {
    "qkv": ("qkv", "embed"),
    "proj": ("embed", "attn"),
    "fc1": ("hidden", "embed"),
    "fc2": ("embed", "hidden"),
}
"""Rows and columns of each kind."""


@dataclass(frozen=True)
class TargetSpec:
    """The size of one model. ``None`` means as the ancestor; images and patches are square, in pixels.

    ``num_heads`` and ``mlp_ratio`` make heads of other ``head_dim`` and MLPs of int(embed_dim * mlp_ratio) hidden
    channels. Raises :class:`WaveError` for a number that is not positive, or not whole where it counts something.
    """

    embed_dim: int
    depth: int
    num_classes: int | None = None
    img_size: int | None = None
    patch_size: int | None = None
    num_heads: int | None = None
    mlp_ratio: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or field.name == "mlp_ratio":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise WaveError(f"{field.name}={value!r} is not a whole number of at least 1")
        ratio = cast(object, self.mlp_ratio)
        if ratio is None or (type(ratio) in (int, float) and 1 <= cast(float, ratio) * self.embed_dim < math.inf):
            return
        raise WaveError(f"mlp_ratio={ratio!r} does not give embed_dim={self.embed_dim} a hidden channel")

    @property
    def name(self) -> str:
        """Short unique name, also the registry's alias: ``d096-l06``, and ``-c100-i32-p4-h2-m2_5`` of what is given."""
        ratio = None if self.mlp_ratio is None else str(float(self.mlp_ratio)).removesuffix(".0").replace(".", "_")
        extras = (
            *(("c", self.num_classes), ("i", self.img_size), ("p", self.patch_size)),
            *(("h", self.num_heads), ("m", ratio)),
        )
        return f"d{self.embed_dim:03d}-l{self.depth:02d}" + "".join(f"-{k}{v}" for k, v in extras if v is not None)

    @property
    def title(self) -> str:
        """For tables and figures: ``96 x 6``, with heads and mlp_ratio where they are given."""
        heads = "" if self.num_heads is None else f", {self.num_heads} heads"
        return f"{self.embed_dim} x {self.depth}{heads}" + (
            "" if self.mlp_ratio is None else f", mlp_ratio {self.mlp_ratio:g}"
        )

    def to_json(self) -> dict[str, object]:
        """Plain JSON types, the arguments of this class; ``num_heads`` and ``mlp_ratio`` only where they are given, so
        that what was written and keyed before there were these stays."""
        return {k: v for k, v in asdict(self).items() if v is not None or k not in ("num_heads", "mlp_ratio")}


@dataclass(frozen=True)
class TemplateSpec:
    """The templates of a family of models: per kind the block shape ``(a, b)`` and the count ``N``.

    ``head_dim`` (channels a head) and ``mlp_ratio`` are those of every size that does not say otherwise; ``order`` is
    that of the Kronecker products. Raises :class:`WaveError` when a block or count is impossible.
    """

    blocks: Mapping[Kind, tuple[int, int]]
    counts: Mapping[Kind, int]
    head_dim: int
    mlp_ratio: float = 4.0
    order: Order = "tile"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise WaveError(f"order={self.order!r} is unknown; use one of {', '.join(get_args(Order))}")
        if self.head_dim < 1 or not 0 < self.mlp_ratio < math.inf:
            raise WaveError(f"head_dim={self.head_dim} and mlp_ratio={self.mlp_ratio} must be positive")
        for label, table in (("blocks", self.blocks), ("counts", self.counts)):
            if set(table) != set(KINDS):
                raise WaveError(f"{label} names {sorted(table)}; it needs exactly {list(KINDS)}")
        for kind in KINDS:
            a, b = self.blocks[kind]
            count = self.counts[kind]
            if min(a, b, count) < 1:
                raise WaveError(f"{kind}: block {a}x{b} and count {count} must be at least 1")
            if count > a * b:
                raise WaveError(f"{kind}: {count} templates of {a}x{b}; {a * b} already build every weight exactly")

    @classmethod
    def uniform(
        cls, head_dim: int, count: int, block: int | None = None, mlp_ratio: float = 4.0, order: Order = "tile"
    ) -> "TemplateSpec":
        """The same count and the same square block (default ``head_dim``) for all four kinds."""
        side = block or head_dim
        return cls(dict.fromkeys(KINDS, (side, side)), dict.fromkeys(KINDS, count), head_dim, mlp_ratio, order)

    def shape(self, size: TargetSpec) -> Shape:
        """The lengths of a model's axes; raises :class:`WaveError` if its width is not cut into heads."""
        heads = heads_of(size.embed_dim, size.num_heads, self.head_dim)
        ratio = self.mlp_ratio if size.mlp_ratio is None else size.mlp_ratio
        return Shape(size.embed_dim, heads, size.embed_dim // heads, int(size.embed_dim * ratio))

    def enclosing(self, shape: Shape) -> Shape:
        """The smallest shape of whole blocks and template heads that holds ``shape``; its heads need not be as wide
        together as its stream. ``shape`` itself where nothing is to be cropped."""
        if self._fits(shape):
            return shape
        embed, hidden = self.unit("embed"), self.unit("hidden")
        attn = _up(shape.heads * self.head_dim, embed)
        return Shape(_up(shape.embed, embed), attn // self.head_dim, self.head_dim, _up(shape.hidden, hidden))

    def grid(self, kind: Kind, shape: Shape) -> tuple[int, int]:
        """Shape ``(p, q)`` of the scalers of one kind and one layer; raises :class:`WaveError` as :meth:`check`."""
        self.check(shape)
        outer, (a, b) = self.enclosing(shape), self.blocks[kind]
        rows, columns = (outer.length(axis) for axis in AXES[kind])
        return rows // a, columns // b

    def _fits(self, shape: Shape) -> bool:
        return shape.head_dim == self.head_dim and all(
            shape.length(axis) % side == 0
            for kind in KINDS
            for axis, side in zip(AXES[kind], self.blocks[kind], strict=True)
        )

    def check(self, shape: Shape, whole: bool = False) -> None:
        """Raise :class:`WaveError` unless these templates can build that shape.

        ``whole``: without cropping, as the model must be that others are read off; the nearest valid widths are named.
        """
        if shape.head_dim > self.head_dim:
            raise WaveError(
                f"head_dim is {shape.head_dim}; these templates were made for {self.head_dim}, and heads can only be "
                f"cropped: embed_dim={shape.embed} needs num_heads={least_heads(shape.embed, self.head_dim)} or more"
            )
        if self._fits(shape) or not (whole or self.order == "interleave"):
            return
        near = " and ".join(map(str, self.nearest(shape.embed)))
        if shape.embed % self.unit("embed") == 0 and shape.head_dim == self.head_dim:
            sides = " and ".join(map(str, sorted({self.blocks["fc1"][0], self.blocks["fc2"][1]})))
            raise WaveError(
                f"embed_dim={shape.embed} with mlp_ratio={shape.hidden / shape.embed:g} has {shape.hidden} hidden "
                f"channels, no multiple of the blocks' {sides}: choose blocks of fc1 and fc2 that divide it"
                + (f", or the nearest valid widths: {near}" if near else "")
            )
        heads = "" if shape.head_dim == self.head_dim else f", {shape.heads} heads of {shape.head_dim}"
        raise WaveError(
            f"embed_dim={shape.embed}{heads} cannot be built from blocks {self._block_text()} with "
            f"head_dim={self.head_dim}; "
            + (f"nearest valid widths: {near}" if near else "no width below 10000 can")
            + ("" if whole else f"; order={self.order} cannot crop whole blocks to it, order=tile can")
        )

    def _block_text(self) -> str:
        sides = {self.blocks[kind] for kind in KINDS}
        return ", ".join(f"{a}x{b}" for a, b in sorted(sides))

    def nearest(self, embed_dim: int) -> list[int]:
        """The nearest widths below and above that are built without cropping."""

        def fits(heads: int) -> bool:
            return self._fits(self.shape(TargetSpec(heads * self.head_dim, 1)))

        start = embed_dim // self.head_dim
        below = next((n * self.head_dim for n in range(start, 0, -1) if fits(n)), None)
        above = next((n * self.head_dim for n in range(start + 1, 10000) if fits(n)), None)
        return [n for n in (below, above) if n is not None]

    def unit(self, axis: Axis) -> int:
        """Entries of an axis that one step of the width map moves together: whole heads and whole blocks."""
        sides = [
            side
            for kind in KINDS
            for name, side in zip(AXES[kind], self.blocks[kind], strict=True)
            if (name == "hidden") == (axis == "hidden")
        ]
        return math.lcm(*sides) if axis == "hidden" else math.lcm(self.head_dim, *sides)

    def num_parameters(self) -> int:
        """Entries of all templates together."""
        return sum(self.counts[kind] * math.prod(self.blocks[kind]) for kind in KINDS)

    def num_scalers(self, target: TargetSpec) -> int:
        """Scalers of all layers of one model."""
        shape = self.shape(target)
        return target.depth * sum(self.counts[k] * math.prod(self.grid(k, shape)) for k in KINDS)

    def to_json(self) -> dict[str, object]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        blocks = {kind: list(self.blocks[kind]) for kind in KINDS}
        counts = {kind: self.counts[kind] for kind in KINDS}
        numbers = {"head_dim": self.head_dim, "mlp_ratio": self.mlp_ratio, "order": self.order}
        return {"blocks": blocks, "counts": counts, **numbers}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "TemplateSpec":
        """Raises :class:`WaveError` when a field is missing or of a wrong type."""
        try:
            raw_blocks, raw_counts = data["blocks"], data["counts"]
            if not isinstance(raw_blocks, dict) or not isinstance(raw_counts, dict):
                raise TypeError("blocks and counts must be tables")
            sides, numbers = cast(dict[Kind, list[int]], raw_blocks), cast(dict[Kind, int], raw_counts)
            if not all(type(n) is int for n in (*(s for v in sides.values() for s in v), *numbers.values())):
                raise TypeError("blocks and counts must be whole numbers")
            blocks: dict[Kind, tuple[int, int]] = {kind: (side[0], side[1]) for kind, side in sides.items()}
            head_dim, mlp_ratio = data["head_dim"], data["mlp_ratio"]
            if not isinstance(head_dim, int) or not isinstance(mlp_ratio, int | float):
                raise TypeError("head_dim and mlp_ratio must be numbers")
            return cls(blocks, dict(numbers), head_dim, float(mlp_ratio), cast(Order, data["order"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            if isinstance(error, WaveError):
                raise
            raise WaveError(f"template specification is not valid: {error!r}") from None


def _up(length: int, unit: int) -> int:
    return -(-length // unit) * unit
