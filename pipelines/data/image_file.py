"""One image file: its bytes to a PIL image, within limits that its header cannot talk its way around.

What an image costs is what its header says, before a byte of it is right: so the header is read first. An image has at
most :data:`LARGEST` pixels, and no more than that when its shorter side is brought to the model's size; then one
thread holds at most about 1 GB for it.
"""

import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from pipelines.data.as_seen import NoRuleError, as_seen
from pipelines.data.file_kinds import kind_of
from wave.errors import WaveError

LARGEST = 2**26
"""Pixels of one image: 8192 x 8192."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is read, in Pillow's names. Pillow knows others that start a program, or take their size from elsewhere."""
MODES = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels an encoded image can be read as."""
_TILE_WIDTH, _TILE_LENGTH, _ROWS_PER_STRIP = 322, 323, 278
_CHUNKS = {b"VP8X": (24, 3, 1), b"VP8 ": (26, 2, 0), b"VP8L": (21, 0, 1)}

# what Pillow's decoders raise for damaged files (SyntaxError: PNG chunks; struct, zlib, EOFError: cut short; TypeError:
# a tag of another type)
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit here is lower
warnings.filterwarnings("ignore", module="PIL.TiffImagePlugin", category=UserWarning)  # of damaged EXIF data


def decode(data: bytes, shape: Sequence[int], where: str, draft: int | None = None) -> Image.Image:
    """The image in a file's bytes as a person sees it (:mod:`pipelines.data.as_seen`), RGB or grey,
    for a model that reads ``shape`` (C, H, W). ``draft``: a JPEG may be decoded at any size from
    ``draft`` pixels.

    Raises :class:`WaveError` that begins with ``where`` when the bytes are not a whole image within the limits.
    """
    mode, side = MODES[int(shape[0])], int(max(shape[1:]))
    try:
        _check_size(*_webp_canvas(data), side)  # Pillow sets the canvas aside when it opens one
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, side)
            _check_tiles(image)
            if draft:
                image.draft(mode, (draft, draft))
            return as_seen(image, mode)
    except _TooLarge as error:
        raise WaveError(f"{where}: {error}") from None
    except NoRuleError as error:
        raise WaveError(f"{where}: the image does not decode: {error}") from None
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = kind_of(data) if isinstance(error, UnidentifiedImageError) else reason
        raise WaveError(f"{where}: the image does not decode: {reason[:120]}") from None


class _TooLarge(Exception):
    """An image beyond the limits; the text says which."""


def _check_size(width: int, height: int, side: int) -> None:
    if width * height > LARGEST:
        raise _TooLarge(f"the image has {width} x {height} pixels; at most {LARGEST} in all: make it smaller")
    short, long = sorted((max(width, 1), max(height, 1)))
    if long * side * side > max(LARGEST, 4 * side * side) * short:
        raise _TooLarge(
            f"the image has {width} x {height} pixels, more than {LARGEST} when its shorter side has {side}: crop it"
        )


def _check_tiles(image: Image.Image) -> None:
    """Tiles and strips of a TIFF are unpacked whole, however small the image in them is."""
    tags = getattr(image, "tag_v2", None) or {}
    width, length = (tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    rows = min(tags.get(_ROWS_PER_STRIP, 0), image.size[1])
    if max(width * length, rows * image.size[0]) > LARGEST:
        raise _TooLarge(f"the image has tiles of {width} x {length} pixels; at most {LARGEST} in each: save it anew")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP file; 0 of any other."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or data[12:16] not in _CHUNKS or len(data) < 30:
        return 0, 0
    start, step, one = _CHUNKS[data[12:16]]
    if step:
        width, height = (int.from_bytes(data[start + i * step :][:step], "little") for i in (0, 1))
        return (width + one, height + one) if step == 3 else (width & 0x3FFF, height & 0x3FFF)
    bits = int.from_bytes(data[start : start + 4], "little")
    return (bits & 0x3FFF) + one, (bits >> 14 & 0x3FFF) + one
