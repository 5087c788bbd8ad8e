"""The size of one model, and the four kinds of weight matrices in its blocks."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from .errors import WaveError
from .shape import Axis

Kind = Literal["qkv", "proj", "fc1", "fc2"]
"""One of the four weight matrices of a block."""
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds, in the order of a block."""
AXES: Mapping[Kind, tuple[Axis, Axis]] = {
    "qkv": ("qkv", "embed"),
    "proj": ("embed", "attn"),
    "fc1": ("hidden", "embed"),
    "fc2": ("embed", "hidden"),
}
"""Rows and columns of each kind."""


@dataclass(frozen=True)
class TargetSpec:
    """The size of one model; None in place of a number means "as the ancestor".

    Args:
        embed_dim: Channels of the residual stream.
        depth: Number of blocks.
        num_classes: Outputs of the classifier.
        img_size: Side of the square images, in pixels.
        patch_size: Side of the square patches, in pixels.
        num_heads: Attention heads, when their ``head_dim`` is not the ancestor's.
        mlp_ratio: Makes MLPs of ``int(embed_dim * mlp_ratio)`` hidden units.

    Raises:
        WaveError: A number is not positive, or not whole where it counts something.

    >>> TargetSpec(96, 6, num_classes=100).name
    'd096-l06-c100'
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
        if self.mlp_ratio is not None and not _gives_hidden_units(self.embed_dim, self.mlp_ratio):
            raise WaveError(
                f"mlp_ratio={self.mlp_ratio!r} does not give embed_dim={self.embed_dim} "
                "a hidden channel"
            )

    @property
    def name(self) -> str:
        """A short unique name, which is also the registry's alias, such as ``d096-l06-h2-m2_5``."""
        given = {"c": self.num_classes, "i": self.img_size, "p": self.patch_size}
        given |= {"h": self.num_heads}
        extras = [f"-{letter}{value}" for letter, value in given.items() if value is not None]
        if self.mlp_ratio is not None:
            # The registry's aliases hold no dots.
            ratio = str(float(self.mlp_ratio)).removesuffix(".0").replace(".", "_")
            extras.append(f"-m{ratio}")
        return f"d{self.embed_dim:03d}-l{self.depth:02d}" + "".join(extras)

    @property
    def title(self) -> str:
        """A name for tables and figures, such as ``96 x 6, 2 heads``."""
        title = f"{self.embed_dim} x {self.depth}"
        if self.num_heads is not None:
            title += f", {self.num_heads} heads"
        if self.mlp_ratio is not None:
            title += f", mlp_ratio {self.mlp_ratio:g}"
        return title

    def pixels(self) -> tuple[int, int]:
        """Return the sides of an image and of a patch.

        Raises:
            WaveError: One of the two is None; :meth:`wave.Family.resolve` fills both in.
        """
        if self.img_size is None or self.patch_size is None:
            raise WaveError(
                f"img_size={self.img_size} and patch_size={self.patch_size}: "
                "both are needed here; Family.resolve fills them in"
            )
        return self.img_size, self.patch_size

    def to_json(self) -> dict[str, object]:
        """Return the numbers that are given, the arguments of this class, as JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _gives_hidden_units(embed_dim: int, mlp_ratio: object) -> bool:
    """Whether a ratio, of any type that a person may write, gives at least one hidden unit."""
    if isinstance(mlp_ratio, bool) or not isinstance(mlp_ratio, int | float):
        return False
    return 1 <= mlp_ratio * embed_dim < math.inf
