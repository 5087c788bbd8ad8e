"""Where the ancestor comes from: timm, a directory, a checkpoint file, the registry, or a training here."""

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, cast

from mlflow.exceptions import MlflowException
from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.ancestor import named
from pipelines.ancestors.messages import first_line
from pipelines.ancestors.reading import check_classifier, load_directory, read_checkpoint, read_directory
from pipelines.ancestors.record import ancestor_key, kept_ancestor
from pipelines.ancestors.timm_models import pretrained
from pipelines.ancestors.weight_file import Which
from pipelines.config.ancestor import Ancestor
from pipelines.config.experiment import Experiment
from pipelines.data.dataset import Dataset
from pipelines.registry.kept_files import fetch
from pipelines.registry.store import existing_store
from pipelines.runtime.files import absolute
from pipelines.runtime.workspace import Workspace
from wave.errors import WaveError


class Source(NamedTuple):
    """A model, the statistics of its input (a number a channel, images in 0..1), which weights it has where its file
    holds averaged and raw ones, and what a reader is told."""

    model: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    which: Which | None = None
    notes: tuple[str, ...] = ()


def pinned(experiment: Experiment) -> Experiment:
    """The experiment with ``models:/NAME@ALIAS`` (or ``/latest``) as the version that it names now.

    So one run sees one model, its workers need no registry to know the key, and an alias that moved gives another key.
    Raises :class:`WaveError` when the registry lacks it.
    """
    uri = experiment.ancestor.source
    found = re.fullmatch(r"models:/(.+?)(@(.+)|/latest)", uri)
    if not found:
        return experiment
    client = existing_store(experiment.mlflow.tracking_uri, Path.cwd()).client()
    name, alias = found[1], found[3]
    try:
        if alias:
            version = client.get_model_version_by_alias(name, alias).version
        else:
            client.get_registered_model(name)
            found_versions = client.search_model_versions(f"name = '{name}'")
            version = max((int(v.version) for v in found_versions), default=0)
    except MlflowException as error:
        raise _absent(uri, error) from None
    if not version:
        raise WaveError(f"ancestor.source={uri}: {name} has no version; see: python -m pipelines models list")
    source = experiment.ancestor.model_copy(update={"source": f"models:/{name}/{version}"})
    return experiment.model_copy(update={"ancestor": source})


def foresee(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> Source:
    """The ancestor that a run would use, before anything is written or started: the one in the workspace if it is
    there, else as its source gives it; without weights (on torch's meta device) if it is to be trained here.

    Raises :class:`WaveError` when it cannot be read or is not a supported ViT.
    """
    if kept_ancestor(workspace, ancestor_key(experiment, dataset)) is not None:
        return Source(*load_directory(workspace.ancestor))
    if experiment.ancestor.source == "train":
        return Source(named(experiment, dataset, "meta"), dataset.mean, dataset.std)
    return _read(experiment, dataset)


def _read(experiment: Experiment, dataset: Dataset) -> Source:
    """``ancestor.mean`` and ``std`` come first, then what the source says; a model of another number of channels than
    timm's statistics of its architecture is taken to read the data's."""
    settings = experiment.ancestor
    kind, _, rest = settings.source.partition(":")
    if kind in ("local-dir", "checkpoint"):
        found = _from_files(settings, kind, absolute(rest, "ancestor.source"), dataset)
    elif kind == "models":
        found = _from_registry(experiment, settings.source)
    else:
        model = pretrained(rest, dict(settings.model_args), f"ancestor.source={settings.source}")
        found = Source(model, *_statistics(model, dataset))
    return found._replace(mean=settings.mean or tuple(found.mean), std=settings.std or tuple(found.std))


def _from_files(settings: Ancestor, kind: str, path: Path, dataset: Dataset) -> Source:
    if kind == "local-dir":
        read = read_directory(path, settings.weights)
    else:
        read = read_checkpoint(path, cast(str, settings.architecture), settings.model_args, settings.weights)
    check_classifier(read.model, path)
    mean, std = (read.mean, read.std) if read.mean else _statistics(read.model, dataset)
    return Source(read.model, mean, std, read.which, read.notes)


def _statistics(model: VisionTransformer, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    config = cast(dict[str, Any], model.pretrained_cfg)
    same = len(config["mean"]) == model.patch_embed.proj.in_channels
    return (config["mean"], config["std"]) if same else (dataset.mean, dataset.std)


def _from_registry(experiment: Experiment, uri: str) -> Source:
    store = existing_store(experiment.mlflow.tracking_uri, Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = fetch(store.client(), store.tracking_uri, uri, Path(folder))
        except MlflowException as error:
            raise _absent(uri, error) from None
        except WaveError as error:
            raise WaveError(f"ancestor.source={error}") from None
        return Source(*load_directory(path))


def _absent(uri: str, error: MlflowException) -> WaveError:
    form = (
        "" if re.fullmatch(r"models:/.+(/[^/]+|@[^@/]+)", uri) else "; write models:/NAME/VERSION or models:/NAME@ALIAS"
    )
    return WaveError(
        f"ancestor.source={uri}: {first_line(error).rstrip('.')}{form}; see: python -m pipelines models list"
    )
