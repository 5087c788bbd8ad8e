"""The section [data]: where the images are and what training does to them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.augmentation import check_policy
from pipelines.config.fields import PathText, Share
from pipelines.config.sizes import MAX_SIDE
from pipelines.config.validation import Says, Section, SettingError

CHANGES = ("augment", "hflip", "random_crop", "color_jitter", "reprob")
"""Settings of :class:`Data` that change training images."""


class Data(Section):
    """Where the images are and what training does to them.

    See :mod:`pipelines.data.dataset` and :mod:`pipelines.data.batches`.

    ``held_out`` training images are kept apart when the set is converted: nothing trains on them, the comparison
    chooses learning rates by them.
    """

    path: Annotated[PathText, Field(min_length=1)]
    convert: Literal["digits", "fashion-mnist", "imagefolder"] | None = None
    source: PathText = ""
    image_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    held_out: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    in_memory: Annotated[Literal["auto"] | bool, Says('should be "auto", true or false')] = "auto"
    augment: str = ""
    hflip: Share = 0.0
    random_crop: Share = 0.0
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    reprob: Share = 0.0

    @property
    def name(self) -> str:
        """By which results tell data sets apart: the last part of ``path``."""
        return Path(self.path).name

    @property
    def changes_images(self) -> bool:
        """Whether a training image differs from one epoch to the next."""
        return any(getattr(self, key) for key in CHANGES)

    @property
    def unchanged(self) -> "Data":
        """The same, of images as they are."""
        return self.model_copy(update={key: Data.model_fields[key].default for key in CHANGES})

    def _converter(self) -> str:
        return f"convert={self.convert!r}" if self.convert else "no convert"

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.source and self.convert in (None, "digits"):
            raise SettingError("source", f"has no effect with {self._converter()}; leave it out")
        if self.convert == "imagefolder" and not self.source:
            raise SettingError(
                "source", 'is missing; convert="imagefolder" needs the folder that holds train/ and val/'
            )
        if self.image_size and self.convert not in ("imagefolder", "digits"):
            raise SettingError("image_size", f"has no effect with {self._converter()}; leave it out")
        if self.in_memory is True:
            for key in ("workers", "augment", "color_jitter", "reprob"):
                if getattr(self, key):
                    raise SettingError(key, "has no effect with in_memory=true; leave one of them out")
        if self.augment:
            check_policy(self.augment)
            if self.color_jitter and "3a" not in self.augment:
                raise SettingError(
                    "color_jitter", f"has no effect with augment={self.augment!r}; leave one of them out"
                )
        return self
