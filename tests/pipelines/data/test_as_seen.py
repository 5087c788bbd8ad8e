"""What is decoded is what a person sees: upright, on a white ground, with the right levels; or it is refused by name."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipelines.data.image_file import decode
from tests.pipelines.image_data import line

SHAPE = (3, 16, 16)
WHITE = (255, 255, 255)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(data: bytes, channels: int = 3, draft: int | None = None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of Pillow's in every worker is not an answer
        return np.asarray(decode(data, (channels, 16, 16), "x", draft=draft)).astype(int)


# --- orientation ---


def quarters() -> Image.Image:
    """Red, green / blue, white; 48 wide and 32 high, so no two of its eight orientations are the same."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels[16:, 24:] = 255
    return Image.fromarray(pixels)


def lying(orientation: int) -> Image.Image:
    """``quarters`` as a camera stores it that notes ``orientation``: the inverse of what the number asks for."""
    rows_first = np.asarray(quarters())
    if orientation >= 5:
        rows_first = rows_first.transpose(1, 0, 2)
    # where row 0 and column 0 of the stored picture are seen, by the EXIF standard
    flip_rows, flip_columns = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[
        orientation
    ]
    rows_first = rows_first[::-1] if flip_rows else rows_first
    return Image.fromarray(np.ascontiguousarray(rows_first[:, ::-1] if flip_columns else rows_first))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_seen_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(lying(orientation), kind, exif=exif, **({"quality": 100} if kind in ("JPEG", "WEBP") else {}))
    for draft in (None, 32):
        image = seen(data, draft=draft)
        assert image.shape == (32, 48, 3)
        for (y, x), colour in {(8, 12): (255, 0, 0), (8, 36): (0, 255, 0), (24, 12): (0, 0, 255)}.items():
            assert np.abs(image[y, x] - colour).max() < 25, (orientation, y, x, image[y, x])


def test_orientation_in_xmp_alone() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>')
    assert seen(saved(lying(6), pnginfo=info)).shape == (32, 48, 3)


def test_damaged_exif_leaves_the_picture_as_it_lies() -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0"):
        image = decode(saved(quarters(), "JPEG", exif=exif), SHAPE, "x")
        assert image.size == (48, 32)


# --- transparency: on white, whatever the kind ---


def drawn(mode: str, ink: int, hidden: int) -> Image.Image:
    """A square of ``ink`` in the middle of what is wholly transparent and, under it, ``hidden``."""
    grey = np.full((16, 16), hidden, np.uint8)
    grey[4:12, 4:12] = ink
    alpha = np.zeros((16, 16), np.uint8)
    alpha[4:12, 4:12] = 255
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    return image.convert("RGBA") if mode == "RGBA" else image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("hidden", [0, 90, 255])
def test_black_on_clear_is_black_on_white(mode: str, kind: str, hidden: int) -> None:
    image = drawn("RGBA" if kind == "WEBP" else mode, 0, hidden)
    for channels in (3, 1):
        found = seen(saved(image, kind, **({"lossless": True} if kind == "WEBP" else {})), channels)
        assert (found[8, 8] == 0).all() and (found[0, 0] == 255).all()


def palette(transparency: int | bytes) -> bytes:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 0, 0, 0, 200, 0, 0])
    image.paste(1, (4, 4, 12, 12))
    return saved(image, transparency=transparency)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff\xff"])
def test_a_palette_with_transparency(transparency: int | bytes) -> None:
    found = seen(palette(transparency))
    assert tuple(found[0, 0]) == WHITE and tuple(found[8, 8]) == (0, 0, 0)


def test_half_transparent_is_half_of_the_ground() -> None:
    found = seen(saved(Image.new("RGBA", (16, 16), (0, 0, 0, 51))))
    assert np.abs(found - 204).max() <= 1


@pytest.mark.parametrize(("mode", "hole"), [("L", 0), ("RGB", (0, 0, 0)), ("1", 0)])
def test_one_colour_that_stands_for_nothing(mode: str, hole: Any) -> None:
    image = Image.new(mode, (16, 16), hole)
    image.paste(1 if mode == "1" else (100 if mode == "L" else (100, 100, 100)), (4, 4, 12, 12))
    found = seen(saved(image, transparency=hole))
    assert tuple(found[0, 0]) == WHITE and (found[8, 8] == (255 if mode == "1" else 100)).all()


def test_a_gif_with_transparency_shows_its_first_picture() -> None:
    first, second = drawn("RGBA", 0, 0), Image.new("RGBA", (16, 16), (200, 0, 0, 255))
    data = saved(first, "GIF", save_all=True, append_images=[second], duration=100, disposal=2)
    found = seen(data)
    assert tuple(found[0, 0]) == WHITE and tuple(found[8, 8]) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_of_several_pictures_the_first(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    found = seen(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert found[8, 8, 0] > 240 and found[8, 8, 1:].max() < 10


# --- more than eight bits ---


def ramp(most: int) -> np.ndarray:
    return np.linspace(0, most, 256).round().astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits(kind: str) -> None:
    assert (seen(saved(Image.fromarray(ramp(65535)), kind), 1) == ramp(65535) >> 8).all()


def test_grey_of_16_bits_with_a_transparent_level() -> None:
    found = seen(saved(Image.fromarray(ramp(65535)), transparency=0), 1)
    assert found[0, 0] == 255 and (found.reshape(-1)[1:] == (ramp(65535) >> 8).reshape(-1)[1:]).all()


@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_a_grey_map_of_any_depth(most: int) -> None:
    data = f"P5 16 16 {most}\n".encode() + ramp(most).astype(">u2").tobytes()
    assert np.abs(seen(data, 1) - ramp(most) * (255 / most)).max() <= 1


def tiff(bits: int, photometric: int, packed: bytes) -> bytes:
    """A grey TIFF of 16x16 in one strip."""
    entries = [(256, 3, 16), (257, 3, 16), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    entries += [(277, 3, 1), (278, 3, 16), (279, 4, len(packed))]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + directory + b"\0\0\0\0"


def test_a_tiff_of_12_bits_is_not_dark() -> None:
    bits = "".join(f"{level:012b}" for level in ramp(4095).reshape(-1))
    found = seen(tiff(12, 1, int(bits, 2).to_bytes(384, "big")), 1)
    assert (found == ramp(4095) >> 4).all()


def test_a_tiff_whose_white_is_zero() -> None:
    found = seen(tiff(16, 0, ramp(65535).astype("<u2").tobytes()), 1)
    assert (found == 255 - (ramp(65535) >> 8)).all()


def test_cmyk() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert np.abs(seen(saved(image, kind))[8, 8] - (255, 0, 0)).max() < 6


# --- without a rule: refused by name ---


@pytest.mark.parametrize(
    ("mode", "name"), [("F", "floating-point numbers"), ("I", "whole numbers of 32 bits"), ("LAB", "CIELAB colours")]
)
def test_a_mode_without_a_rule_is_named(mode: str, name: str) -> None:
    message = line(decode, saved(Image.new(mode, (16, 16)), "TIFF"), SHAPE, "here.tif")
    assert message == (
        f"here.tif: the image does not decode: pictures of {name} are not read; "
        "save it with 8 or 16 bits a channel, grey or RGB"
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "it is HEIC, which is not read; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 40, "it is AVIF, which is not read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is JPEG XL, which is not read"),
        (b"<?xml version='1.0'?>\n<svg width='1'/>", "it is SVG, which is not read"),
        (b"\n<!DOCTYPE html><html>not found</html>", "it is a web page, which is not read"),
        (b"\x00\x05\x16\x07" + b"\0" * 40, "it is a companion file of macOS, not an image; remove it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a pointer of Git LFS"),
        (b"", "it is empty"),
        (b"\0" * 999, "it holds nothing but zeros"),
        (b"nothing of the kind", "no known format"),
    ],
)
def test_a_format_that_is_not_read_is_named(data: bytes, name: str) -> None:
    assert line(decode, data, SHAPE, "a.jpg").startswith(f"a.jpg: the image does not decode: {name}")
