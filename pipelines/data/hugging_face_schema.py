"""Which columns of a Parquet file of Hugging Face's form hold image and label, and what the classes are called."""

import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from wave.errors import WaveError
from wave.json_file import JsonError, parse_json

_LABELS = ("label", "labels", "target", "class", "category")
_IMAGES = ("image", "img", "jpg", "png")


class Columns(NamedTuple):
    """The names of two columns, and of the classes where the metadata have them."""

    image: str
    label: str
    names: tuple[str, ...] = ()


def columns_of(schema: pa.Schema, path: Path) -> Columns:
    """Raises :class:`WaveError` where it is not plain which columns are meant, or one is of a type without a rule."""
    features = _features(schema, path)
    image = _choose([f.name for f in schema if _is_image(f.type)], _typed(features, "Image"), _IMAGES, "images", path)
    numbers = [f.name for f in schema if _is_label(f.type) and (f.name in _LABELS or f.name in features)]
    label = _choose(numbers, _typed(features, "ClassLabel"), _LABELS, "labels", path)
    found = features.get(label, {}).get("names") or ()
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise WaveError(f"{path}: its metadata's class names are {str(found)[:80]}; a list of names is needed")
    return Columns(image, label, tuple(unicodedata.normalize("NFC", name) for name in found))


def _features(schema: pa.Schema, path: Path) -> dict[str, dict[str, Any]]:
    """Column -> its feature: those of :class:`datasets.Features`, as their JSON in the schema has them."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        features: Any = parse_json(raw, "huggingface")["info"]["features"] if raw else {}
        return {str(name): feature for name, feature in features.items() if isinstance(feature, dict)}
    except (JsonError, KeyError, TypeError, AttributeError) as error:
        raise WaveError(f"{path}: its 'huggingface' metadata are not valid ({error!r}); export it again") from None


def _typed(features: dict[str, dict[str, Any]], kind: str) -> list[str]:
    return [name for name, feature in features.items() if feature.get("_type") == kind]


def _choose(able: list[str], declared: list[str], usual: tuple[str, ...], what: str, path: Path) -> str:
    """The column that is declared to be it, else the one with a usual name, else the only one that could be it."""
    names = [name for name in able if name in declared] or able
    for choice in (names, [name for name in usual if name in names][:1]):
        if len(choice) == 1:
            return choice[0]
    if not names:
        raise WaveError(f"{path}: has no column of {what} (one that is called {usual[0]!r}, or declared in its metadata)")
    raise WaveError(f"{path}: has {len(names)} columns of {what} ({', '.join(names)}); rename one to {usual[0]!r}")


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_string)
    return any(test(kind) for test in (*tests, pa.types.is_large_string, pa.types.is_string_view))
