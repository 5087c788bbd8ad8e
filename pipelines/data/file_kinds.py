"""What a file is that is no image we read, told by its first bytes, for a message that helps."""

_KINDS = (
    (0, b"\x00\x05\x16\x07", "a companion file of macOS, not an image; remove it"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the image; fetch it with `git lfs pull`"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\0\0\x01\0", "an icon file"),
    (0, b"DDS ", "DDS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (128, b"DICM", "DICOM"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)
_TEXTS = ((b"<svg", "SVG"), (b"<!doctype html", "a web page"), (b"<html", "a web page"))


def kind_of(data: bytes) -> str:
    """One clause: what the file is and what to do; of bytes that say nothing, "no known format"."""
    if not data.strip(b"\0"):
        return "it is empty" if not data else "it holds nothing but zeros"
    names = [name for at, magic, name in _KINDS if data[at:].startswith(magic)]
    text = data[:1000].lower()
    names += [name for magic, name in _TEXTS if magic in text]
    if not names:
        return "no known format"
    return f"it is {names[0]}" if ";" in names[0] else f"it is {names[0]}, which is not read; save it as JPEG or PNG"
