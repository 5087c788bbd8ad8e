"""Models as other programs keep them, checkpoint files and folders, read without executing them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.big_vision import is_big_vision, read_big_vision
from pipelines.ancestors.facts import arguments_for, facts_of, facts_of_model
from pipelines.ancestors.folder import Described, described, weights_of
from pipelines.ancestors.messages import first_line
from pipelines.ancestors.names import filtered, timm_names
from pipelines.ancestors.prefixes import unwrapped
from pipelines.ancestors.timm_models import create
from pipelines.ancestors.weight_file import State, Which, read_weights
from pipelines.config.timm_arguments import REFUSALS
from wave.errors import WaveError
from wave.tensor_file import check_dense, check_shapes, weights
from wave.vit import set_eps

_ARGUMENTS = "ancestor.model_args"
_BACKBONE = (
    "{}: a backbone, it has no classifier; templates are distilled with a classifier's outputs: fine-tune it with "
    "one for this data first (timm's train.py --num-classes does) and give that checkpoint"
)


class Read(NamedTuple):
    """A model, the statistics of its input where its source says them, which weights it has where its file holds
    averaged and raw ones, and what a reader is told."""

    model: VisionTransformer
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    which: Which | None = None
    notes: tuple[str, ...] = ()


def read_checkpoint(
    path: Path, architecture: str, given: Mapping[str, Any], which: Which | None = None, where: str = _ARGUMENTS
) -> Read:
    """The model in a checkpoint file, also one without a classifier.

    ``given`` are the arguments of the timm model that its tensors do not tell. Raises :class:`WaveError`
    when the file is missing, is no checkpoint, or its tensors are not those of such a model, all finite.
    """
    advice = f"set {where} to the checkpoint's model"
    if is_big_vision(path):
        return Read(read_big_vision(path, architecture, given, where))
    return _built(path, Described(architecture, given, where, advice), which)


def read_directory(directory: Path, which: Which | None = None) -> Read:
    """The model in a folder of timm or of transformers, also one without a classifier, with mean and std."""
    found = described(Path(directory))
    read = _built(weights_of(Path(directory)), found, which)
    return read._replace(mean=found.mean, std=found.std, notes=(*found.notes, *read.notes))


def load_directory(directory: Path) -> tuple[VisionTransformer, tuple[float, ...], tuple[float, ...]]:
    """A folder's model, mean and std. Raises :class:`WaveError` that names the file, also for a backbone."""
    read = read_directory(directory)
    check_classifier(read.model, directory)
    return read.model, read.mean, read.std


def check_classifier(model: VisionTransformer, path: Path) -> None:
    """Raise :class:`WaveError` for a model without a classifier."""
    if model.num_classes < 1:
        raise WaveError(_BACKBONE.format(path))


def _built(path: Path, found: Described, which: Which | None) -> Read:
    """The model of a weight file: its size from the tensors, the rest as ``found`` describes it."""
    held, prefix = unwrapped(read_weights(path, which), path, which)
    usual = create(found.architecture, {}, found.where, "meta")
    try:
        state, notes = timm_names(held.state, usual, found.architecture)
    except WaveError as error:
        raise WaveError(f"{path}: {error}") from None
    except REFUSALS as error:
        raise WaveError(f"{path}: timm cannot read its tensors ({first_line(error)}); {found.advice}") from None
    told = facts_of(state, found.given.get("no_embed_class", usual.no_embed_class))
    arguments, more = arguments_for(path, told, facts_of_model(usual), found.given, found.where)
    model = create(found.architecture, arguments, found.where)
    if "img_size" in told and "img_size" in found.given:
        state = filtered(state, model, found.architecture)
    advice = f"{found.advice}; its names begin with {prefix}, which was left out" if prefix else found.advice
    _fill(model, state, path, advice)
    if found.eps is not None:
        set_eps(model, found.eps)
    name = path.name
    return Read(model, which=held.which, notes=(*held.notes, *(f"{name}: {n}" for n in notes), *more))


def _fill(model: VisionTransformer, state: State, path: Path, advice: str) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in wanted.keys() & state.keys():
        check_dense(path, name, state[name])
    found = {name: tuple(tensor.shape) if name in wanted else () for name, tensor in state.items()}
    check_shapes(path, found, wanted, advice)
    model.load_state_dict({name: weights(path, name, tensor) for name, tensor in state.items()})
