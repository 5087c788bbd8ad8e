"""Tensors from a file that somebody else may have written: named before they are read."""

import argparse
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import WaveError

UNREADABLE = (
    OSError,
    SafetensorError,
    EOFError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
)
"""What safetensors, torch and zipfile raise for a file that is none of theirs, or is impossible."""
Shapes = Mapping[str, tuple[int, ...]]


def opened(path: Path) -> Any:
    """A safetensors file of which nothing but the header is read yet; the library has no types."""
    return safe_open(path, "pt")


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header alone. Raises :data:`UNREADABLE`."""
    with opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_safetensors(path: Path, wanted: Shapes, advice: str) -> dict[str, Tensor]:
    """Return exactly the tensors ``wanted``, in float32; nothing is read of a file with others.

    Raises :class:`WaveError` as :func:`check_shapes` and :func:`weights`, and :data:`UNREADABLE`
    for what is no such file.
    """
    check_shapes(path, shapes_in(path), wanted, advice)
    with opened(path) as file:
        return {name: weights(path, name, file.get_tensor(name)) for name in wanted}


def check_shapes(path: Path, found: Shapes, wanted: Shapes, advice: str) -> None:
    """Raise :class:`WaveError` with the first tensor that is missing, extra or misshapen."""
    for name in [*wanted, *found]:
        if name not in found:
            raise WaveError(f"{path}: tensor {name} is missing; {advice}")
        if name not in wanted:
            raise WaveError(f"{path}: tensor {name} has no place in the model; {advice}")
        if found[name] != wanted[name]:
            shapes = f"has shape {found[name]}, the model's is {wanted[name]}"
            raise WaveError(f"{path}: tensor {name} {shapes}; {advice}")


def read_torch(path: Path, device: Any = "cpu") -> Any:
    """Return what a file of torch holds, tensors and plain types alone: no code is run.

    Raises pickle.UnpicklingError where it holds more, :class:`WaveError` where it unpacks to more
    than the file has, :data:`UNREADABLE` for what is no such file.
    """
    check_unpacked(path, "torch.save")
    with (
        # Of the pickle's protocol, and that nested tensors are new.
        warnings.catch_warnings(action="ignore"),
        # As timm: checkpoints of its train.py, of DeiT and of MAE hold one.
        torch.serialization.safe_globals([argparse.Namespace]),
    ):
        return torch.load(path, map_location=device, weights_only=True)


def check_unpacked(path: Path, writer: str) -> None:
    """Refuse an archive that unpacks to more than it is: ``writer`` does not compress."""
    if zipfile.is_zipfile(path):
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise WaveError(
                f"{path}: {size} bytes that unpack to {unpacked}; "
                f"save it with {writer}, which does not compress"
            )


def weights(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Return a dense, finite tensor of floats in float32; anything else is a :class:`WaveError`."""
    check_dense(path, name, tensor)
    values = tensor.detach().float()
    if not bool(values.isfinite().all()):
        original = tensor.dtype == torch.float64 and bool(tensor.isfinite().all())
        what = "float64 values that float32 cannot hold" if original else "NaN or infinite values"
        raise WaveError(f"{path}: tensor {name} holds {what}; use an earlier checkpoint")
    return values


def _kind(tensor: Tensor) -> str:
    """What a tensor is that no weight can be; "" for one that may be."""
    if tensor.is_nested:
        return "nested"
    if tensor.device.type == "meta":
        return "on the meta device, without values"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})"
    if not tensor.is_floating_point():
        what = "complex" if tensor.is_complex() else "of whole numbers"
        return f"{what} ({str(tensor.dtype).removeprefix('torch.')})"
    return ""


def check_dense(path: Path, name: str, tensor: Tensor) -> None:
    """Raise :class:`WaveError` for what has no shape or no values to ask for."""
    if kind := _kind(tensor):
        raise WaveError(f"{path}: tensor {name} is {kind}; save it as a dense tensor of floats")


def check_layers(
    path: Path, found: Shapes, prefix: str, depth: int | None, width: int | None
) -> None:
    """Raise :class:`WaveError` unless a file holds the layers that a description beside it says.

    None where it does not say. What is only described costs a line to write, and seconds a hundred
    layers to build.
    """
    own = [name for name in found if name.startswith(prefix)]
    norms = [found[name] for name in own if name.endswith(".norm1.weight")]
    widths = sorted({shape[0] for shape in norms if shape})
    if depth not in (None, len(norms)):
        has = f"{len(norms)} layers"
        raise WaveError(f"{path}: holds {has}; the description beside it says {depth}")
    if width is not None and norms and widths != [width]:
        has = f"layers of {' and '.join(map(str, widths))} channels"
        raise WaveError(f"{path}: holds {has}; the description beside it says {width}")
