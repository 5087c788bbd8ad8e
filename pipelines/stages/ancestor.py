"""The ancestor as the first stage of a run: trained here, or read from its source and measured."""

from typing import Any

import torch

from pipelines.ancestors.ancestor import named
from pipelines.ancestors.chance import near_chance
from pipelines.ancestors.reading import load_directory
from pipelines.ancestors.record import ancestor_key, kept_ancestor
from pipelines.ancestors.source import Source, foresee
from pipelines.ancestors.teacher import judge
from pipelines.config.experiment import Experiment
from pipelines.data.batches import evaluation_batches
from pipelines.data.dataset import Dataset
from pipelines.runtime.console import say
from pipelines.runtime.remote import on_worker
from pipelines.runtime.workspace import Workspace
from pipelines.stages.training import Work, fit
from wave.export import save_model
from wave.measure import accuracy, num_parameters


def obtain(
    experiment: Experiment, dataset: Dataset, workspace: Workspace, source: Source | None = None
) -> dict[str, Any]:
    """Put the ancestor into ``workspace.ancestor`` as a timm directory, unless it is there, and return its record.

    ``source`` is what :func:`foresee` gave, if it was asked. The record holds accuracy on the test split, parameters,
    a key and, where its file holds averaged and raw weights, which of them it has.
    """
    settings, own = experiment.ancestor, ancestor_key(experiment, dataset)
    done = kept_ancestor(workspace, own)
    if done is not None:
        say(f"ancestor: already there, accuracy {done['accuracy']:.3f}")
        return done
    if settings.source == "train":
        name = f"ancestor-{own}"
        say(f"ancestor: training {settings.architecture} on {dataset.num_rows('train')} images")
        reached = fit(experiment, dataset, workspace, name, build)
        found, doubt = {}, None
    else:
        say(f"ancestor: reading {settings.source}")
        source = source or foresee(experiment, dataset, workspace)
        for note in source.notes:
            say(f"ancestor: {note}")
        save_model(source.model, workspace.ancestor, source.mean, source.std, preprocessing=dataset.preprocessing)
        reached = on_worker(experiment.distil, judge, experiment, dataset, workspace)
        found = {"weights": source.which} if source.which else {}
        doubt = near_chance(reached, dataset, source)
    parameters = num_parameters(load_directory(workspace.ancestor)[0])
    say(f"ancestor: {parameters} parameters, accuracy {reached:.3f}")
    if doubt:
        say(f"ancestor: warning: {doubt}")
    return workspace.finish(workspace.ancestor, own, {"accuracy": reached, "parameters": parameters, **found})


def build(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> Work:
    """Its training, for :func:`pipelines.stages.training.fit`."""
    recipe = experiment.ancestor.recipe
    assert recipe is not None
    torch.manual_seed(experiment.seed)
    model = named(experiment, dataset)

    def keep(trained: torch.nn.Module, _: dict[str, Any]) -> float:
        save_model(trained, workspace.ancestor, dataset.mean, dataset.std, dataset.classes, dataset.preprocessing)
        device = next(trained.parameters()).device
        return accuracy(trained, evaluation_batches(dataset, experiment.data, 256)(), device)

    return Work("ancestor", recipe, model, keep)
