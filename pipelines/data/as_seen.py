"""A decoded picture as a person sees it: upright, with eight bits, on a ground. One rule for each kind of picture.

Orientation: turned as its EXIF or XMP data say. Transparency, of whatever kind: on :data:`GROUND`. More than eight
bits: the eight highest. CMYK: by Pillow's formula. Colour profiles are not applied. Of several pictures in a file
(animations, pages) the first is taken. A kind without a rule is refused by name.
"""

from typing import Any

import numpy as np
from PIL import Image

GROUND = (255, 255, 255)
"""White: what transparent pictures are seen on."""

_TURN = Image.Transpose
_TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_CLEAR = ("LA", "PA", "La", "RGBA", "RGBa")
_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262
_NO_RULE = {"I": "whole numbers of 32 bits", "F": "floating-point numbers", "LAB": "CIELAB colours"}
_UNREADABLE_EXIF = (OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError)


class NoRuleError(Exception):
    """A picture that nobody can say the look of; the text says which kind and what works."""


def as_seen(image: Image.Image, mode: str) -> Image.Image:
    """The picture in ``mode``, RGB or L. Raises :class:`NoRuleError`, and what Pillow raises for damaged files."""
    image.load()  # data about the picture may stand behind it; a TIFF is turned here
    turn = _TURNS.get(_orientation(image))
    image = _eight_bits(image)
    if image.mode not in _PLAIN + _CLEAR:
        kind = _NO_RULE.get(image.mode, f"mode {image.mode}")
        raise NoRuleError(f"pictures of {kind} are not read; save it with 8 or 16 bits a channel, grey or RGB")
    if image.has_transparency_data:
        clear = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        image = Image.new("RGB", image.size, GROUND)
        image.paste(clear, mask=clear)
    image = image.convert(mode)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """1, upright, where the data about the picture are damaged: viewers show such a picture as it lies."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _UNREADABLE_EXIF:
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 bits with its highest eight; ``convert`` would clip at 255."""
    grey_map = image.mode == "I" and image.format == "PPM"  # Pillow brings every PGM to 0..65535
    if not (image.mode.startswith("I;16") or grey_map):
        return image
    tags: Any = getattr(image, "tag_v2", {})
    levels = np.asarray(image)
    grey = (levels >> tags.get(_BITS, (16,))[0] - 8).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only 8 bits round
        grey = 255 - grey
    result = Image.fromarray(grey)
    if (clear := image.info.get("transparency")) is not None:
        result.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return result
