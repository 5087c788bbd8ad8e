"""Teacher: the frozen ancestor, which reads the student's batches although its input statistics or size may differ."""

from collections.abc import Sequence
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import WaveError
from .features import Features, read


class Teacher(nn.Module):
    """Logits (B, K) of ``model`` for images normalised with the student's ``mean`` and ``std`` (0..1 units, a channel).

    Images are brought to the teacher's statistics, number of channels (grey is repeated, colour averaged) and size
    (bilinear). Raises :class:`WaveError` when the channel counts cannot be matched.
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
        weight = self.model.get_parameter("patch_embed.proj.weight")
        self.channels = weight.shape[1]
        size = getattr(self.model.get_submodule("patch_embed"), "img_size", None)
        self.img_size: tuple[int, int] | None = tuple(size) if size else None
        mean, std = mean or student_mean, std or student_std
        if 1 not in (len(student_mean), self.channels) and len(student_mean) != self.channels:
            raise WaveError(
                f"images have {len(student_mean)} channels and the ancestor reads {self.channels}; "
                "only grey and colour can be brought to each other"
            )
        if len(mean) not in (1, self.channels, len(student_mean)):
            raise WaveError(f"ancestor statistics have {len(mean)} channels; the ancestor reads {self.channels}")
        ours = [torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (student_mean, student_std)]
        theirs = [torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (mean, std)]
        if len(student_mean) > self.channels == 1:
            theirs = [t.expand_as(o) for t, o in zip(theirs, ours, strict=True)]
        self.register_buffer("scale", ours[1] / theirs[1], persistent=False)
        self.register_buffer("shift", (ours[0] - theirs[0]) / theirs[1], persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.matched(images))
        return logits

    @torch.no_grad()
    def features(self, images: Tensor) -> Features:
        """Logits with what leads to them."""
        return read(cast(VisionTransformer, self.model), self.matched(images))

    def matched(self, images: Tensor) -> Tensor:
        """The images as ``model`` reads them."""
        x = images * self.scale + self.shift
        if x.shape[1] != self.channels:
            x = x.mean(1, keepdim=True) if self.channels == 1 else x.expand(-1, self.channels, -1, -1)
        if self.img_size is not None and tuple(x.shape[-2:]) != self.img_size:
            x = F.interpolate(x, self.img_size, mode="bilinear", align_corners=False, antialias=True)
        return x
