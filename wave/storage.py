"""Templates: the product of stage 1, kept on disk as safetensors and JSON, never pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .family import Family, size_of
from .files import MALFORMED, checksum, one_line, replacing, save_tensors
from .json_file import JsonError, read_json
from .resampling import Resampling
from .spec import KINDS, Kind, TargetSpec
from .template_spec import TemplateSpec
from .tensor_file import UNREADABLE, Shapes, check_layers, opened, shapes_in, weights
from .typed import json_object
from .vit import BANK, bank_of, own_state, shape_of, templated

FORMAT, VERSION = "wave-templates", 1
TENSORS, META = "templates.safetensors", "templates.json"
CHANGED = "wrong checksum; the file was changed or cut short: distil or pull it again"
_LARGEST = 16384
"""Width and depth beyond which a file is not believed: building such a model would take forever."""


@dataclass(frozen=True)
class Templates:
    """The product of stage 1: templates, the auxiliary model's own state, and how to read them.

    Args:
        spec: Shape and number of the templates.
        family: The ancestor's family.
        size: The auxiliary model's size.
        bank: The templates of each kind, (N, a, b).
        state: The auxiliary model's own state (:func:`wave.vit.own_state`).
        options: How stage 1 read sizes off the auxiliary model.
        info: What else is worth keeping, as JSON types: the ancestor's description, the digest of
            the data, metrics, mean and standard deviation of the images.
        digest: sha256 of the artifact; empty for templates that were not loaded.
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
    def of(
        cls, auxiliary: nn.Module, family: Family, options: Resampling, info: Mapping[str, Any]
    ) -> "Templates":
        """Take the templates from an auxiliary model, as copies on the CPU."""
        bank = bank_of(auxiliary)
        tensors: dict[Kind, Tensor] = {kind: _copy(bank(kind)) for kind in KINDS}
        state = {name: _copy(tensor) for name, tensor in own_state(auxiliary).items()}
        return cls(
            spec=bank.spec,
            family=family,
            size=family.resolve(size_of(auxiliary)),
            bank=tensors,
            state=state,
            options=options,
            info=info,
        )

    def save(self, directory: str | Path) -> str:
        """Write the artifact to a folder, whole or not at all.

        Returns:
            Its digest.

        Raises:
            WaveError: It cannot be written.
        """
        directory = Path(directory)
        tensors = {f"{BANK}.{kind}": tensor for kind, tensor in self.bank.items()}
        tensors |= {f"auxiliary.{name}": tensor for name, tensor in self.state.items()}
        with replacing(directory) as folder:
            save_tensors(tensors, folder / TENSORS, shown=directory / TENSORS)
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
            # The JSON holds the hash of the tensors, so that its own hash stands for all.
            meta["checksum"] = checksum(meta)
            (folder / META).write_text(json.dumps(meta, indent=2) + "\n")
        return str(meta["checksum"])

    @classmethod
    def load(cls, directory: str | Path) -> "Templates":
        """Read and check an artifact.

        Raises:
            WaveError: It has a defect; the message names the file.

        >>> templates = Templates.load("benchmarks/artifacts/fashion-mnist/templates")
        >>> templates.size.name, templates.spec.num_parameters()
        ('d096-l06-c10-i28-p7', 65536)
        """
        folder = Path(directory)
        meta = _read_meta(folder / META)
        path = folder / TENSORS
        if _sha256(path) != meta.get("sha256"):
            raise WaveError(f"{path}: {CHANGED}")
        try:
            shapes = shapes_in(path)
        except UNREADABLE as error:
            raise WaveError(f"{path}: not a safetensors file ({one_line(error)})") from None
        try:
            templates, model = cls._described(meta, path, shapes=shapes)
        except WaveError as error:
            raise WaveError(f"{folder / META}: {error}") from None
        except MALFORMED as error:
            why = f"field missing or of a wrong type: {one_line(error)}"
            raise WaveError(f"{folder / META}: {why}") from None
        tensors = _read_tensors(path, shapes, model=model)
        bank: dict[Kind, Tensor] = {kind: tensors[f"{BANK}.{kind}"] for kind in KINDS}
        state = {
            name.removeprefix("auxiliary."): tensor
            for name, tensor in tensors.items()
            if name.startswith("auxiliary.")
        }
        return replace(templates, bank=bank, state=state)

    @classmethod
    def _described(
        cls, meta: Mapping[str, Any], path: Path, shapes: Shapes
    ) -> tuple["Templates", nn.Module]:
        """What the JSON says, without tensors yet, and the model that the tensors must fit."""
        spec = TemplateSpec.from_json(meta["spec"])
        family = Family.from_json(meta["family"])
        size = family.resolve(TargetSpec(**meta["auxiliary"]))
        options = Resampling(**meta["resampling"])
        if max(size.embed_dim, size.depth) > _LARGEST:
            raise WaveError(
                f"a model of width {size.embed_dim} and depth {size.depth}; "
                f"at most {_LARGEST} of each"
            )
        # Before the model is built: a described layer costs a line, a built one milliseconds.
        prefix = "auxiliary.blocks."
        check_layers(path, shapes, prefix=prefix, depth=size.depth, width=size.embed_dim)
        skeleton = family.create(size, device="meta")
        if spec.shape(size) != shape_of(skeleton):
            raise WaveError(
                f"templates for {spec.shape(size)}, an auxiliary model of {shape_of(skeleton)}"
            )
        spec.check(spec.shape(size), whole=True)
        templates = cls(
            spec=spec,
            family=family,
            size=size,
            bank={},
            state={},
            options=options,
            info=dict(meta["info"]),
            digest=str(meta["checksum"]),
        )
        return templates, templated(skeleton, TemplateBank(spec))

    def auxiliary(self) -> nn.Module:
        """Create the auxiliary model, ready to run or to train on."""
        model = templated(self.family.create(self.size), TemplateBank(self.spec, self.bank))
        model.load_state_dict(dict(self.state), strict=False)
        return model


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()


def _missing(path: Path, error: OSError) -> WaveError:
    why = f"{error.strerror}; a templates artifact is a folder with {META} and {TENSORS}"
    return WaveError(f"{path}: {why}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _missing(path, error) from None


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json_object(read_json(path))
    except JsonError as error:
        raise WaveError(f"{error}; the file was changed or cut short") from None
    except OSError as error:
        raise _missing(path, error) from None
    except TypeError:
        raise WaveError(f"{path}: not a JSON object") from None
    found, version = meta.get("format"), meta.get("version")
    if found != FORMAT:
        raise WaveError(f"{path}: format {found!r}; a templates artifact has {FORMAT!r}")
    if version != VERSION:
        raise WaveError(f"{path}: format version {version!r}; this program reads {VERSION}")
    if meta.get("checksum") != checksum(meta):
        raise WaveError(f"{path}: {CHANGED}")
    return meta


def _read_tensors(path: Path, shapes: Shapes, model: nn.Module) -> dict[str, Tensor]:
    """The artifact's tensors, names and shapes first: a file that says otherwise is not read."""
    bank = bank_of(model)
    wanted = {f"{BANK}.{kind}": tuple(bank(kind).shape) for kind in KINDS}
    wanted |= {f"auxiliary.{name}": tuple(v.shape) for name, v in own_state(model).items()}
    for name in sorted(set(wanted) ^ set(shapes)):
        raise WaveError(f"{path}: tensor {name} is {'missing' if name in wanted else 'unknown'}")
    tensors: dict[str, Tensor] = {}
    with opened(path) as file:
        for name, shape in wanted.items():
            tensor = torch.empty(shapes[name], device="meta")
            if shapes[name] == shape:
                tensor = file.get_tensor(name)
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                found = f"{tensor.dtype} {tuple(tensor.shape)}"
                raise WaveError(f"{path}: tensor {name} is {found}; it must be float32 {shape}")
            tensors[name] = weights(path, name, tensor=tensor)
    return tensors
