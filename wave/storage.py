"""What is kept on disk: the templates' artifact and plain timm directories, both safetensors and JSON, never pickle."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from timm.models._hub import save_config_for_hf  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .family import Family, size_of
from .json_file import JsonError, read_json
from .resampling import Resampling
from .spec import KINDS, Kind, TargetSpec, TemplateSpec
from .tensor_file import UNREADABLE, Shapes, check_layers, opened, shapes_in, weights
from .vit import BANK, own_state, shape_of, templated

FORMAT, VERSION = "wave-templates", 1
TENSORS, META = "templates.safetensors", "templates.json"
_LARGEST = 16384
_BEFORE: dict[str, Any] = {"width": "even"}
"""What an artifact that does not say was made with."""
_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""What safetensors, torch and timm raise for a file that says something impossible."""
CHANGED = "wrong checksum; the file was changed or cut short: distil or pull it again"


@dataclass(frozen=True)
class Templates:
    """The product of stage 1: templates, the auxiliary model's own state, and all that is needed to read them.

    ``info`` holds the ancestor's description, data digest, metrics, and the data's mean and std: JSON types.
    """

    spec: TemplateSpec
    family: Family
    size: TargetSpec
    bank: Mapping[Kind, Tensor]
    state: Mapping[str, Tensor]
    options: Resampling
    info: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any]())
    digest: str = ""

    @classmethod
    def of(cls, auxiliary: nn.Module, family: Family, options: Resampling, info: Mapping[str, Any]) -> "Templates":
        """Taken from an auxiliary model, copied to the CPU."""
        bank = cast(TemplateBank, auxiliary.get_submodule(BANK))
        tensors: dict[Kind, Tensor] = {kind: bank(kind).detach().cpu().clone() for kind in KINDS}
        state = {k: v.detach().cpu().clone() for k, v in own_state(auxiliary).items()}
        return cls(bank.spec, family, family.resolve(size_of(auxiliary)), tensors, state, options, info)

    def save(self, directory: Path) -> str:
        """Write the artifact, whole or not at all; returns its digest: sha256 of the JSON, which holds the tensors'."""
        tensors = {f"{BANK}.{k}": v for k, v in self.bank.items()}
        tensors |= {f"auxiliary.{k}": v for k, v in self.state.items()}
        with replacing(directory) as folder:
            _save_tensors(tensors, folder / TENSORS, directory)
            meta: dict[str, Any] = {
                "format": FORMAT,
                "version": VERSION,
                "spec": self.spec.to_json(),
                "family": self.family.to_json(),
                "auxiliary": self.size.to_json(),
                "resampling": asdict(self.options),
                "info": dict(self.info),
                "sha256": hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest(),
            }
            meta["checksum"] = _checksum(meta)
            (folder / META).write_text(json.dumps(meta, indent=2) + "\n")
        return str(meta["checksum"])

    @classmethod
    def load(cls, directory: Path) -> "Templates":
        """Read and check an artifact; every defect is a :class:`WaveError` that names the file."""
        where = Path(directory)
        meta = _read_json(where / META)
        if meta.get("format") != FORMAT:
            raise WaveError(f"{where / META}: format {meta.get('format')!r}; a templates artifact has {FORMAT!r}")
        if meta.get("version") != VERSION:
            raise WaveError(f"{where / META}: format version {meta.get('version')!r}; this program reads {VERSION}")
        if meta.get("checksum") != _checksum(meta):
            raise WaveError(f"{where / META}: {CHANGED}")
        path = where / TENSORS
        if _sha256(path) != meta.get("sha256"):
            raise WaveError(f"{path}: {CHANGED}")
        try:
            shapes = shapes_in(path)
        except UNREADABLE as error:
            raise WaveError(f"{path}: not a safetensors file ({_one_line(error)})") from None
        try:
            spec, family = TemplateSpec.from_json(meta["spec"]), Family.from_json(meta["family"])
            size, options = (
                family.resolve(TargetSpec(**meta["auxiliary"])),
                Resampling(**{**_BEFORE, **meta["resampling"]}),
            )
            if max(size.embed_dim, size.depth) > _LARGEST:
                raise WaveError(f"a model of width {size.embed_dim} and depth {size.depth}; at most {_LARGEST} of each")
            check_layers(path, shapes, "auxiliary.blocks.", size.depth, size.embed_dim)
            info, skeleton = dict(meta["info"]), family.create(size, device="meta")
            if spec.shape(size) != shape_of(skeleton):
                raise WaveError(f"templates for {spec.shape(size)}, an auxiliary model of {shape_of(skeleton)}")
            spec.check(spec.shape(size), whole=True)
            model = templated(skeleton, TemplateBank(spec))
        except WaveError as error:
            raise WaveError(f"{where / META}: {error}") from None
        except _MALFORMED as error:
            raise WaveError(f"{where / META}: field missing or of a wrong type: {_one_line(error)}") from None
        tensors = _read_tensors(path, shapes, model)
        bank: dict[Kind, Tensor] = {kind: tensors[f"{BANK}.{kind}"] for kind in KINDS}
        state = {k.removeprefix("auxiliary."): v for k, v in tensors.items() if k.startswith("auxiliary.")}
        return cls(spec, family, size, bank, state, options, info, str(meta["checksum"]))

    def auxiliary(self) -> nn.Module:
        """The auxiliary model, ready to run or to train on."""
        model = templated(self.family.create(self.size), TemplateBank(self.spec, self.bank))
        model.load_state_dict(dict(self.state), strict=False)
        return model


def _read_tensors(path: Path, shapes: Shapes, model: nn.Module) -> dict[str, Tensor]:
    """The artifact's tensors, names and shapes first: a file that says otherwise is not read."""
    bank = cast(TemplateBank, model.get_submodule(BANK))
    wanted = {f"{BANK}.{kind}": tuple(bank(kind).shape) for kind in KINDS}
    wanted |= {f"auxiliary.{k}": tuple(v.shape) for k, v in own_state(model).items()}
    for name in sorted(set(wanted) ^ set(shapes)):
        raise WaveError(f"{path}: tensor {name} is {'missing' if name in wanted else 'unknown'}")
    tensors: dict[str, Tensor] = {}
    with opened(path) as file:
        for name, shape in wanted.items():
            tensor: Tensor = (
                file.get_tensor(name) if shapes[name] == shape else torch.empty(shapes[name], device="meta")
            )
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise WaveError(
                    f"{path}: tensor {name} is {tensor.dtype} {tuple(tensor.shape)}; it must be float32 {shape}"
                )
            tensors[name] = weights(path, name, tensor)
    return tensors


def save_model(
    model: nn.Module,
    directory: Path,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Write a plain timm model as a directory that ``timm.create_model("local-dir:...", pretrained=True)`` reads.

    ``mean`` and ``std`` (0..1 units, a channel) and ``classes`` become its preprocessing and label names;
    ``preprocessing`` adds to it in timm's terms (``crop_pct``, by default the whole image, ``interpolation``). The
    claims of the architecture's original checkpoint (tag, licence, links) are not carried over. Whole or not at all.
    """
    weight = model.get_parameter("patch_embed.proj.weight")
    height, width = cast(tuple[int, int], model.get_submodule("patch_embed").img_size)
    data: dict[str, Any] = {
        "input_size": (weight.shape[1], height, width),
        "mean": tuple(mean),
        "std": tuple(std),
        "crop_pct": 1.0,
    }
    data |= preprocessing or {}
    origin = {"tag": "wave", "license": "unknown", "origin_url": "", "paper_ids": ""}
    config: dict[str, Any] = {"pretrained_cfg": origin}
    if classes:
        config["label_names"] = list(classes)
    with replacing(directory) as folder:
        _save_tensors(
            {k: v.detach().cpu() for k, v in model.state_dict().items()}, folder / "model.safetensors", directory
        )
        save_config_for_hf(model, str(folder / "config.json"), model_config=config, data_config=data)


@contextlib.contextmanager
def replacing(directory: Path) -> Generator[Path]:
    """A temporary folder beside ``directory`` that takes its place when the block ends without an error.

    Raises :class:`WaveError` when ``directory`` is a file.
    """
    directory = Path(directory)
    if directory.is_file():
        raise WaveError(f"{directory} is a file; a folder would be written there: move it or choose another place")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if directory.exists():
            old = temporary.with_name(temporary.name + "-old")
            os.replace(directory, old)
            os.replace(temporary, directory)
            shutil.rmtree(old)
        else:
            os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checksum(meta: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in meta.items() if k != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _save_tensors(tensors: Mapping[str, Tensor], path: Path, directory: Path) -> None:
    """Raises :class:`WaveError`, as for a full disk; ``directory`` is where the file would come to stand."""
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    except (SafetensorError, OSError) as error:
        raise WaveError(f"{directory / path.name} cannot be written: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _missing(path, error) from None


def _missing(path: Path, error: OSError) -> WaveError:
    return WaveError(f"{path}: {error.strerror}; a templates artifact is a folder with {META} and {TENSORS}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except JsonError as error:
        raise WaveError(f"{error}; the file was changed or cut short") from None
    except OSError as error:
        raise _missing(path, error) from None
    if not isinstance(data, dict):
        raise WaveError(f"{path}: not a JSON object")
    return cast(dict[str, Any], data)
