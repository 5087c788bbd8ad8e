"""A file of weights, in whatever form people keep one, as a flat dictionary of tensors; no code in it is run."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from timm.models import clean_state_dict
from torch import Tensor

from pipelines.ancestors.messages import first_line
from pipelines.config.machine import memory_bytes
from wave.errors import WaveError
from wave.json_file import read_json
from wave.tensor_file import UNREADABLE, check_dense, opened, read_torch

Which = Literal["ema", "raw"]
State = dict[str, Tensor]

EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "teacher")
"""Where training scripts keep averaged weights, timm's two first."""
RAW_KEYS = ("state_dict", "model", "model_state_dict", "module", "student")
"""Where they keep those that the optimiser changes."""


_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Counters, which no model here has: left to the check of what a model wants."""


class Weights(NamedTuple):
    """Tensors by name, which of a file's weights they are where it says so, what a reader is told, and where in the
    file they were."""

    state: State
    which: Which | None = None
    notes: tuple[str, ...] = ()
    taken: str = ""


def read_weights(path: Path, which: Which | None = None) -> Weights:
    """The state dict in a file of torch or safetensors, or of shards that an index beside them names.

    Averaged (EMA) weights come first, as in timm, unless ``which`` is ``"raw"``. Raises
    :class:`WaveError` where the file is missing or holds anything but tensors and plain values.
    """
    if path.name.endswith(".index.json"):
        return _chosen(_sharded(path), path, which)
    return _chosen(_content(path), path, which)


def _content(path: Path) -> Any:
    try:
        size, have = path.stat().st_size, memory_bytes()
        if size > have:
            raise WaveError(f"{path}: takes {size / 1e9:.1f} GB, this machine has {have / 1e9:.1f}; it cannot be read")
        if path.suffix == ".safetensors":
            with opened(path) as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return read_torch(path)
    except WaveError:
        raise
    except FileNotFoundError:
        raise WaveError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise WaveError(f"{path}: {_refused(path)}") from None
    except UNREADABLE as error:
        if _is_script(path):
            raise WaveError(f"{path}: {_SCRIPT.format(str(path))}") from None
        raise WaveError(f"{path}: not a checkpoint this program reads ({first_line(error)}); use safetensors") from None


_MODULE = (
    "refused, it holds a whole pickled module ({0}), and loading that runs code; if you trust it, save its "
    "state dict once: torch.save(torch.load({1!r}, weights_only=False).state_dict(), 'weights.pth')"
)
_SCRIPT = (
    "a TorchScript archive, which is a program; if you trust it, save its state dict once: "
    "torch.save(torch.jit.load({0!r}, 'cpu').state_dict(), 'weights.pth')"
)
_MORE = "refused, it holds more than tensors{0}, which could run code, or is damaged; keep its tensors as safetensors"


def _refused(path: Path) -> str:
    """Why torch does not load a file, by the names of the types in it, which are read without running them."""
    if _is_script(path):
        return _SCRIPT.format(str(path))
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except (*UNREADABLE, pickle.UnpicklingError):  # torch's older form, or no file of torch
        names = []
    if any(name.startswith("torch.nn.modules.") for name in names):
        own = [name for name in names if not name.startswith(("torch.", "timm.layers."))]
        model = max(own or names, key=lambda name: ("Transformer" in name, name))
        return _MODULE.format(model, str(path))
    return _MORE.format(f" ({', '.join(names[:3])})" if names else "")


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _sharded(index: Path) -> State:
    """All tensors of the files that an index names; they lie beside it."""
    data = read_json(index)
    files: Any = cast(dict[str, Any], data).get("weight_map") if isinstance(data, dict) else None
    if not isinstance(files, dict) or not files:
        raise WaveError(f"{index}: names no files; an index of shards has a weight_map")
    state: State = {}
    for name in sorted({str(value) for value in cast(dict[str, Any], files).values()}):
        if Path(name).name != name or name.startswith("."):
            raise WaveError(f"{index}: names the file {name!r}; shards lie beside their index")
        content = _content(index.parent / name)
        state.update(_tensors(content, index.parent / name))
    absent = sorted(set(cast(dict[str, Any], files)) - set(state))
    if absent:
        raise WaveError(f"{index}: none of its files holds the tensor {absent[0]}; download the folder again")
    return state


def _chosen(content: Any, path: Path, which: Which | None) -> Weights:
    """The state dict among what a training script saved with it."""
    taken: list[str] = []
    kind: Which | None = None
    beside: str | None = None
    while isinstance(content, dict):
        inside = cast(dict[Any, Any], content)
        ema, raw = (next((k for k in keys if _is_state(inside.get(k))), None) for keys in (EMA_KEYS, RAW_KEYS))
        key = raw if which == "raw" and raw else ema or raw
        if key is None or len(taken) == 4:
            break
        if kind is None and (key in EMA_KEYS or ema):
            kind = "ema" if key in EMA_KEYS else "raw"
            beside = raw if key in EMA_KEYS else ema
        content = inside[key]
        taken.append(key)
    state = clean_state_dict(_tensors(content, path))
    if len(state) != len(cast(dict[str, Any], content)):
        raise WaveError(f"{path}: two tensors have one name without the prefixes module. and _orig_mod.")
    notes: list[str] = []
    if kind is not None:
        words = {"ema": "averaged (EMA) weights", "raw": "raw weights"}[kind]
        other = f'; ancestor.weights = "{"raw" if kind == "ema" else "ema"}" takes {beside}' if beside else ""
        notes.append(f"{words} ({'.'.join(taken)}) of {path.name}{other}")
    return Weights(state, kind or ("raw" if taken else None), tuple(notes), ".".join(taken))


def _is_state(value: object) -> bool:
    """Whether a value is a state dict, or one more wrapper of one."""
    if not isinstance(value, Mapping) or not value:
        return False
    inside = cast(Mapping[str, object], value)
    return any(isinstance(v, Tensor) for v in inside.values()) or any(_is_state(inside.get(k)) for k in RAW_KEYS)


def _tensors(content: Any, path: Path) -> State:
    """The content where it is a dictionary of dense tensors, none larger than what the file stores of it."""
    inside = cast(dict[Any, Any], content) if isinstance(content, dict) else {}
    if not inside or not any(isinstance(value, Tensor) for value in inside.values()):
        has = f"; it holds {', '.join(map(str, list(inside)[:5]))}" if inside else ""
        raise WaveError(f"{path}: holds no state dict of tensors{has}")
    state: State = {}
    for name, value in inside.items():
        if not isinstance(value, Tensor):
            raise WaveError(f"{path}: holds no state dict of tensors: {name} is {type(value).__name__}")
        if value.dtype not in _INTEGERS:
            check_dense(path, str(name), value)
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise WaveError(f"{path}: tensor {name} repeats what it stores; save it contiguous")
        state[str(name)] = value.detach()
    return state
