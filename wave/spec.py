"""Shapes: which templates exist, which sizes they can build, and every rule between the two."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, cast, get_args

from .errors import WaveError
from .kron import Order

Kind = Literal["qkv", "proj", "fc1", "fc2"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Axis = Literal["embed", "qkv", "hidden"]
AXES: Mapping[Kind, tuple[Axis, Axis]] = {
    "qkv": ("qkv", "embed"),
    "proj": ("embed", "embed"),
    "fc1": ("hidden", "embed"),
    "fc2": ("embed", "hidden"),
}
"""Rows and columns of each kind: ``qkv`` has 3 * embed_dim entries, ``hidden`` int(embed_dim * mlp_ratio)."""


@dataclass(frozen=True)
class TargetSpec:
    """The size of one model. ``None`` means as the ancestor; images and patches are square, in pixels.

    Raises :class:`WaveError` for a number that is not a positive integer.
    """

    embed_dim: int
    depth: int
    num_classes: int | None = None
    img_size: int | None = None
    patch_size: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise WaveError(f"{field.name}={value!r} is not a whole number of at least 1")

    @property
    def name(self) -> str:
        """Short unique name, also the registry's alias: ``d096-l06``, with ``-c100-i32-p4`` for what differs."""
        extras = (("c", self.num_classes), ("i", self.img_size), ("p", self.patch_size))
        return f"d{self.embed_dim:03d}-l{self.depth:02d}" + "".join(f"-{k}{v}" for k, v in extras if v is not None)


@dataclass(frozen=True)
class TemplateSpec:
    """The templates of a family of models: per kind the block shape ``(a, b)`` and the count ``N``.

    ``head_dim`` (channels a head) and ``mlp_ratio`` are the same at every size; ``order`` is that of the Kronecker
    products. Raises :class:`WaveError` when a block or count is impossible.
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

    def length(self, axis: Axis, embed_dim: int) -> int:
        """Entries of an axis at a width."""
        return {"embed": embed_dim, "qkv": 3 * embed_dim, "hidden": int(embed_dim * self.mlp_ratio)}[axis]

    def grid(self, kind: Kind, embed_dim: int) -> tuple[int, int]:
        """Shape ``(p, q)`` of the scalers of one kind and one layer; raises :class:`WaveError` if blocks do not fit."""
        self.check(embed_dim)
        return self._grid(kind, embed_dim)

    def _grid(self, kind: Kind, embed_dim: int) -> tuple[int, int]:
        rows, columns = (self.length(axis, embed_dim) for axis in AXES[kind])
        return rows // self.blocks[kind][0], columns // self.blocks[kind][1]

    def _fits(self, embed_dim: int) -> bool:
        return embed_dim % self.head_dim == 0 and all(
            self.length(axis, embed_dim) % side == 0
            for kind in KINDS
            for axis, side in zip(AXES[kind], self.blocks[kind], strict=True)
        )

    def check(self, embed_dim: int) -> None:
        """Raise :class:`WaveError`, with the nearest valid widths, unless these templates can build that width."""
        if self._fits(embed_dim):
            return
        near = self.nearest(embed_dim)
        hidden = self.length("hidden", embed_dim)
        if embed_dim % self.unit("embed") == 0:
            sides = " and ".join(map(str, sorted({self.blocks["fc1"][0], self.blocks["fc2"][1]})))
            raise WaveError(
                f"embed_dim={embed_dim} with mlp_ratio={self.mlp_ratio:g} has {hidden} hidden channels, no multiple of "
                f"the blocks' {sides}: choose blocks of fc1 and fc2 that divide it"
                + (f", or the nearest valid widths: {' and '.join(map(str, near))}" if near else "")
            )
        raise WaveError(
            f"embed_dim={embed_dim} cannot be built from blocks {self._block_text()} with head_dim={self.head_dim}; "
            + (f"nearest valid widths: {' and '.join(map(str, near))}" if near else "no width below 10000 can")
        )

    def _block_text(self) -> str:
        sides = {self.blocks[kind] for kind in KINDS}
        return ", ".join(f"{a}x{b}" for a, b in sorted(sides))

    def nearest(self, embed_dim: int) -> list[int]:
        """The nearest valid widths below and above."""
        start = embed_dim // self.head_dim
        below = next((n * self.head_dim for n in range(start, 0, -1) if self._fits(n * self.head_dim)), None)
        above = next((n * self.head_dim for n in range(start + 1, 10000) if self._fits(n * self.head_dim)), None)
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
        return target.depth * sum(self.counts[k] * math.prod(self.grid(k, target.embed_dim)) for k in KINDS)

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
