"""The trained model that templates come from: timm, a directory, a checkpoint file, the registry, or trained here."""

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import mlflow
import timm
import torch
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from wave.errors import WaveError
from wave.measure import accuracy, num_parameters
from wave.storage import save_model
from wave.teacher import Teacher
from wave.vit import Family, check_supported

from .config import Experiment
from .data import Dataset
from .loader import evaluation_batches
from .session import say
from .store import existing_store
from .training import Work, fit
from .workspace import Workspace, key_of


def obtain(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> dict[str, Any]:
    """Put the ancestor into ``workspace.ancestor`` as a timm directory, unless it is there, and return its record.

    The record holds accuracy on the test split, parameters, seconds and a key. Raises :class:`WaveError` when the
    source cannot be read, is not a supported ViT, or does not have the data set's classes.
    """
    settings = experiment.ancestor
    key = key_of("ancestor", settings.model_dump(mode="json"), experiment.seed, dataset.digest, _stamp(settings.source))
    done = workspace.record(workspace.ancestor, key)
    if done is not None:
        say(f"ancestor: already there, accuracy {done['accuracy']:.3f}")
        return done
    if settings.source == "train":
        name = f"ancestor-{key}"
        say(f"ancestor: training {settings.architecture} on {dataset.num_rows('train')} images")
        fit(experiment, dataset.path, workspace, name, _build)
        shutil.rmtree(workspace.ray / name, ignore_errors=True)
    else:
        say(f"ancestor: reading {settings.source}")
        model = _read(experiment, dataset)
        config = cast(dict[str, Any], model.pretrained_cfg)
        mean, std = (settings.mean or config["mean"], settings.std or config["std"])
        save_model(model, workspace.ancestor, mean, std)
    model, mean, std = load(workspace.ancestor)
    if model.num_classes != len(dataset.classes):
        raise WaveError(
            f"the ancestor has {model.num_classes} classes, {dataset.path} has {len(dataset.classes)}; "
            "templates are distilled on data with the ancestor's classes"
        )
    test = evaluation_batches(dataset, experiment.data, 256)
    from_data = (tuple(mean), tuple(std)) == (dataset.mean, dataset.std)
    reached = accuracy(model if from_data else teacher_of(workspace, dataset), test())
    say(f"ancestor: {num_parameters(model)} parameters, accuracy {reached:.3f}")
    return workspace.finish(workspace.ancestor, key, {"accuracy": reached, "parameters": num_parameters(model)})


def teacher_of(workspace: Workspace, dataset: Dataset) -> Teacher:
    """The ancestor as a teacher for images normalised with the data set's statistics."""
    model, mean, std = load(workspace.ancestor)
    return Teacher(model, dataset.mean, dataset.std, mean, std)


def load(directory: Path) -> tuple[VisionTransformer, tuple[float, ...], tuple[float, ...]]:
    """A timm directory's model, mean and std; safetensors only. Raises :class:`WaveError` naming the file."""
    path = Path(directory) / "config.json"
    try:
        config = json.loads(path.read_text())
        name, args, preprocessing = config["architecture"], config.get("model_args", {}), config["pretrained_cfg"]
        mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
    except OSError as error:
        raise WaveError(f"{path}: {error.strerror}; a timm directory holds config.json and model.safetensors") from None
    except (ValueError, KeyError, TypeError) as error:
        raise WaveError(f"{path}: not a timm configuration ({error})") from None
    model = _create(name, {**args, "num_classes": config.get("num_classes", 1000)}, str(path))
    load_checkpoint(model, Path(directory) / "model.safetensors")
    return model, mean, std


def load_checkpoint(model: torch.nn.Module, path: Path) -> None:
    """Fill ``model`` from safetensors, or from a torch file read with ``weights_only``; never executes code.

    Raises :class:`WaveError` when the file is missing, is neither, or its tensors do not fit the model.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WaveError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise WaveError(f"{path}: refused, it holds more than tensors ({_first_line(error)}); use safetensors") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise WaveError(f"{path}: not a checkpoint this program reads ({_first_line(error)}); use safetensors") from None
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WaveError(f"{path}: holds no state dict of tensors")
    wanted = model.state_dict()
    for name in wanted:
        if name not in state:
            raise WaveError(f"{path}: tensor {name} is missing; set ancestor.model_args to the checkpoint's model")
        if state[name].shape != wanted[name].shape:
            raise WaveError(
                f"{path}: tensor {name} has shape {tuple(state[name].shape)}, the model's is {tuple(wanted[name].shape)}; "
                "set ancestor.model_args to the checkpoint's model"
            )
    model.load_state_dict({name: state[name].float() for name in wanted})


def _read(experiment: Experiment, dataset: Dataset) -> VisionTransformer:
    settings = experiment.ancestor
    kind, _, rest = settings.source.partition(":")
    if kind == "local-dir":
        model = load(Path(rest).expanduser())[0]
    elif kind == "models":
        model = _from_registry(experiment, settings.source)
    elif kind == "checkpoint":
        model = _create(cast(str, settings.architecture), _arguments(experiment, dataset), "ancestor")
        load_checkpoint(model, Path(rest).expanduser())
    else:
        try:
            model = timm.create_model(rest, pretrained=True, **settings.model_args)
        except (RuntimeError, ValueError, OSError) as error:
            raise WaveError(f"ancestor.source=timm:{rest}: {_first_line(error)}; is the model hub reachable?") from None
    return check_supported(model)


def _from_registry(experiment: Experiment, uri: str) -> VisionTransformer:
    store = existing_store(experiment.mlflow.tracking_uri, Path.cwd())
    store.client()
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = mlflow.artifacts.download_artifacts(uri, dst_path=folder)
        except MlflowException as error:
            raise WaveError(f"ancestor.source={uri}: {_first_line(error)}; see: python -m pipelines models list") from None
        return load(Path(path))[0]


def _arguments(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    channels, size, _ = dataset.shape
    own = {"img_size": size, "in_chans": channels, "num_classes": len(dataset.classes)}
    return {**own, **experiment.ancestor.model_args}


def _create(architecture: str, arguments: dict[str, Any], where: str) -> VisionTransformer:
    if not timm.is_model(architecture):
        near = timm.list_models(f"*{architecture[:6]}*")[:1] or ["vit_tiny_patch16_224"]
        raise WaveError(f"{where}: timm has no architecture {architecture!r}; nearest: {near[0]}")
    try:
        model = timm.create_model(architecture, pretrained=False, **arguments)
    except (TypeError, RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise WaveError(f"{where}: timm cannot make {architecture} with {arguments}: {_first_line(error)}") from None
    return check_supported(model)


def present_or_read(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> VisionTransformer:
    """The ancestor that a run would use, without writing anything: from the workspace if it is there."""
    if (workspace.ancestor / "config.json").is_file():
        return load(workspace.ancestor)[0]
    return _read(experiment, dataset)


def plan_family(experiment: Experiment, dataset: Dataset) -> Family:
    """The family of an ancestor that is to be trained here, before it is."""
    return Family.of(_create(cast(str, experiment.ancestor.architecture), _arguments(experiment, dataset), "ancestor"))


def _build(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> Work:
    recipe = experiment.ancestor.recipe
    assert recipe is not None
    torch.manual_seed(experiment.seed)
    model = _create(cast(str, experiment.ancestor.architecture), _arguments(experiment, dataset), "ancestor")

    def keep(trained: torch.nn.Module, _: dict[str, Any]) -> None:
        save_model(trained, workspace.ancestor, dataset.mean, dataset.std, dataset.classes)

    return Work("ancestor", recipe, model, keep)


def _stamp(source: str) -> object:
    """What tells two states of a local source apart."""
    kind, _, rest = source.partition(":")
    path = Path(rest).expanduser()
    if kind == "local-dir":
        path = path / "model.safetensors"
    return [path.stat().st_size, path.stat().st_mtime_ns] if kind in ("local-dir", "checkpoint") and os.path.isfile(path) else 0


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
