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
NEEDS_SOURCE = {
    "imagefolder": "the folder that holds train/CLASS/ and val/CLASS/ with images",
    "list": "a CSV or JSON list of files and labels, or the folder of train.csv and val.csv",
    "webdataset": "the folder that holds train-*.tar and val-*.tar",
}
"""Values of ``data.convert`` that read image files, which are kept as they are -> what their source is."""


class Data(Section):
    """Where the images are, and what training does to them."""

    path: Annotated[PathText, Field(min_length=1)]
    """Folder of Parquet shards, or of Hugging Face's Parquet files, which are read as they are. If
    it is missing or empty and `convert` is set, the images are converted into it first."""
    convert: Literal["digits", "fashion-mnist", "imagefolder", "list", "webdataset"] | None = None
    """Format of the original images: scikit-learn's `"digits"`, IDX files of `"fashion-mnist"`, an
    `"imagefolder"` with `train/CLASS/` and `val/CLASS/`, a `"list"` of files and labels, or tar
    shards of a `"webdataset"`. Leave it out if the shards are there already."""
    source: PathText = ""
    """Folder of the original images, or the file of a list. Only `digits` needs none; for
    `fashion-mnist` the default is where Debian's package puts them."""
    image_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    """Side in pixels that models read, 1 to 8192, for image files and Hugging Face's Parquet (default
    224) and `digits` (default 8)."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Training images to set aside when converting. Nothing trains on them; the comparison chooses
    learning rates by them."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training images to test on, for a source without a test split: each class in its
    share, always the same images. 0 means that the source has one."""
    skip_bad: Annotated[int, Field(ge=0)] = 0
    """Images that may fail to decode when converting: so many are left out and counted, one more is
    an error. 0 means that all must decode."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that decode images per training worker, 0 to 256; 0 decodes in the training
    process. Without effect on images held in memory."""
    in_memory: Annotated[Literal["auto"] | bool, Says('should be "auto", true or false')] = "auto"
    """Whether all training images are kept in memory. `"auto"` does so for images that need no
    decoding and take less than 1 GiB."""
    augment: str = ""
    """timm's auto-augment policy, such as `rand-m9-mstd0.5-inc1`; empty means none. Needs encoded
    images."""
    hflip: Share = 0.0
    """Probability of a horizontal flip. Leave it at 0 where mirrored images mean something else,
    such as digits."""
    random_crop: Share = 0.0
    """Smallest share of an image's area that a random crop keeps; 0 means no random crop. DeiT uses
    0.08."""
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of random brightness, contrast and saturation, 0 to 1. Needs encoded images."""
    reprob: Share = 0.0
    """Probability of erasing a random rectangle. Needs encoded images."""

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
        if self.convert in NEEDS_SOURCE and not self.source:
            raise SettingError("source", f'is missing; convert="{self.convert}" needs {NEEDS_SOURCE[self.convert]}')
        for key in ("test_fraction", "skip_bad"):
            if getattr(self, key) and self.convert not in NEEDS_SOURCE:
                raise SettingError(key, f"has no effect with {self._converter()}; leave it out")
        if self.image_size and self.convert not in (None, *NEEDS_SOURCE, "digits"):
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
