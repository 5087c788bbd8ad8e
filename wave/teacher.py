"""Teacher: the frozen ancestor, which reads the student's batches.

The ancestor's images may have other statistics, channels and sizes than the student's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import WaveError
from .features import Features, read
from .typed import as_vit, patch_embedding_of


class Teacher(nn.Module):
    """``teacher(images)`` gives the ancestor's logits (B, K) for the student's images.

    The images are brought to the ancestor's statistics, number of channels (grey is repeated,
    colour averaged) and size (bilinear).

    Args:
        model: The ancestor; it is frozen.
        student_mean: What the student's images are normalised with: one value per channel, in
            units in which a pixel is between 0 and 1.
        student_std: The same.
        mean: What the ancestor's images are normalised with; by default as the student's.
        std: The same.

    Raises:
        WaveError: The numbers of channels cannot be matched.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        student_mean: Sequence[float],
        student_std: Sequence[float],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        patches = patch_embedding_of(self.model)
        self.channels = patches.proj.weight.shape[1]
        self.img_size = None if patches.img_size is None else tuple(patches.img_size)
        mean, std = mean or student_mean, std or student_std
        given = len(student_mean)
        if 1 not in (given, self.channels) and given != self.channels:
            raise WaveError(
                f"images have {given} channels and the ancestor reads {self.channels}; "
                "only grey and colour can be brought to each other"
            )
        if len(mean) not in (1, self.channels, given):
            raise WaveError(
                f"ancestor statistics have {len(mean)} channels; the ancestor reads {self.channels}"
            )
        our_mean, our_std = _by_channel(student_mean), _by_channel(student_std)
        their_mean, their_std = _by_channel(mean), _by_channel(std)
        if given > self.channels == 1:
            their_mean, their_std = their_mean.expand_as(our_mean), their_std.expand_as(our_std)
        # ((x * our_std + our_mean) - their_mean) / their_std, as one multiplication and addition.
        self.register_buffer("scale", our_std / their_std, persistent=False)
        self.register_buffer("shift", (our_mean - their_mean) / their_std, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.model(self.matched(images))
        return logits

    @torch.no_grad()
    def features(self, images: Tensor) -> Features:
        """Return logits with what leads to them."""
        return read(as_vit(self.model), self.matched(images))

    def matched(self, images: Tensor) -> Tensor:
        """Return the images as the ancestor reads them."""
        x = images * self.scale + self.shift
        if x.shape[1] != self.channels:
            grey = self.channels == 1
            x = x.mean(1, keepdim=True) if grey else x.expand(-1, self.channels, -1, -1)
        if self.img_size is not None and tuple(x.shape[-2:]) != self.img_size:
            x = F.interpolate(
                x, self.img_size, mode="bilinear", align_corners=False, antialias=True
            )
        return x


def _by_channel(values: Sequence[float]) -> Tensor:
    """(1, C, 1, 1), to be broadcast over images."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
