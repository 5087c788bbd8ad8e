"""What can be seen to be wrong before anything is started or written: settings against data, ancestor and machine."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from pipelines.ancestors.record import ancestor_key
from pipelines.ancestors.source import Source, foresee
from pipelines.config.experiment import Experiment
from pipelines.data.batches import augment_of, evaluation_batches, held_in_memory
from pipelines.data.dataset import SPLITS, Dataset
from pipelines.data.streaming import StreamBatches
from pipelines.registry.publish import check_names
from pipelines.runtime.resources import check_world
from pipelines.runtime.workspace import Workspace
from pipelines.stages import capacity, distil
from wave.errors import WaveError
from wave.family import Family
from wave.recipe import Recipe
from wave.resampling import Resampling, resample
from wave.spec import KINDS, TargetSpec
from wave.storage import Templates
from wave.teacher import Teacher
from wave.template_spec import TemplateSpec

_FIRST = 8  # images read of a set that is not held in memory


def check_run(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> Source:
    """Raise :class:`WaveError` for the first thing that could not work, else give the ancestor (see ``foresee``).

    Looks at: the names in the registry; images and labels, whole if they are held in memory; the recipes; the
    ancestor; the templates; every size of stage 1 and stage 2; what an earlier run left in the workspace.
    """
    check_names(experiment.mlflow.registered_model, suffix="-templates")
    for target in experiment.target_specs():
        check_names(experiment.mlflow.registered_model, target.name)
    _check_data(experiment, dataset)
    source = foresee(experiment, dataset, workspace)
    with _named("ancestor"):
        family = Family.of(source.model)
    _check_ancestor(experiment, dataset, source, family)
    _check_sizes(experiment, family)
    _check_templates(experiment, dataset, workspace)
    return source


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except WaveError as error:
        raise WaveError(f"{key}: {error}") from None


def _check_data(experiment: Experiment, dataset: Dataset) -> None:
    settings, (_, height, width) = experiment.data, dataset.shape
    if height != width:
        raise WaveError(
            f"{dataset.path}: images are {width}x{height}; models here read squares: convert them to squares"
        )
    needs = augment_of(settings).encoded_only
    if dataset.encoding == "raw" and needs:
        raise WaveError(f"data.{needs[0]} has no effect on {dataset.path}, whose images are raw; leave it out")
    if settings.workers and held_in_memory(dataset, settings, "train"):
        raise WaveError(
            f"data.workers={settings.workers} has no effect on {dataset.path}, which is held in memory; leave it out"
        )
    for split in SPLITS:
        if not dataset.shards[split]:
            continue
        if held_in_memory(dataset, settings, split):
            dataset.arrays(split)
        elif split == "train":
            next(StreamBatches(dataset, _FIRST, buffer=1)())
        else:
            next(evaluation_batches(dataset, settings.model_copy(update={"workers": 0}), _FIRST, split)())
    rows, least = dataset.num_rows("train"), experiment.distil.worker_range[1] * max(1, settings.workers)
    if rows < least:
        raise WaveError(f"distil.workers: {rows} training images are too few for {least} loader processes")
    _check_recipes(experiment, rows)


def _check_recipes(experiment: Experiment, rows: int) -> None:
    workers = experiment.distil.worker_range
    recipes: dict[str, tuple[Recipe | None, int]] = {
        "ancestor.recipe": (experiment.ancestor.recipe, rows),
        "distil.recipe": (experiment.distil.recipe, rows),
        "initialise.recipe": (experiment.initialise.recipe, experiment.initialise.images_of(rows)),
    }
    for key, (recipe, images) in recipes.items():
        if recipe is None:
            continue
        with _named(key):
            recipe.num_images(images)
            if recipe.batch_size > images:
                raise WaveError(f"batch_size={recipe.batch_size} is more than the {images} images; use at most that")
            worlds = range(workers[0], workers[1] + 1) if key != "initialise.recipe" else (1,)
            for world in worlds:
                check_world(recipe.batch_size, 0, world)
                if (recipe.mixup or recipe.cutmix) and recipe.batch_size // world % 2:
                    raise WaveError(
                        f"batch_size={recipe.batch_size} on {world} workers is an odd number of images on each, and "
                        f"mixup and cutmix mix pairs; nearest: {recipe.batch_size + world}"
                    )
            if key == "ancestor.recipe" and not recipe.ce_weight:
                raise WaveError("ce_weight=0 leaves no loss, for an ancestor has no teacher; set it to 1")


def _check_ancestor(experiment: Experiment, dataset: Dataset, source: Source, family: Family) -> None:
    channels, side, _ = dataset.shape
    size, classes = family.size, len(dataset.classes)
    if size.num_classes != classes:
        raise WaveError(
            f"the ancestor has {size.num_classes} classes, {dataset.path} has {classes}; "
            "templates are distilled on data with the ancestor's classes: fine-tune it on this data first and give it "
            'as local-dir:PATH or checkpoint:PATH, or train one here with source = "train"'
        )
    if experiment.distil.feature_weight and not isinstance(source.model.patch_drop, nn.Identity):
        raise WaveError(
            "distil.feature_weight compares all tokens, and the ancestor's patch_drop_rate drops some; leave one out"
        )
    with _named("ancestor"):
        family.resolve(size)
        Teacher(source.model, dataset.mean, dataset.std, source.mean, source.std)
    if family.in_chans != channels or size.img_size != side:
        raise WaveError(
            f"the ancestor reads {family.in_chans}x{size.img_size}x{size.img_size} images, {dataset.path} holds "
            f"{channels}x{side}x{side}; convert the data to that, or set in_chans and img_size in ancestor.model_args"
        )


def check_comparison(experiments: Mapping[str, Experiment], family: Family, rows: int) -> None:
    """Raise :class:`WaveError` for a variant of our method that has no templates, or a size of a study that one of ours
    cannot build; ``experiments`` are those of our method and its variants, by name, ``rows`` training images."""
    for variant in experiments[""].evaluate.variants:
        own = experiments[variant.name]
        with _named(f"evaluate.variants: {variant.name}"):
            _check_recipes(own, rows)
            capacity.check_workers(own)
            _check_stage1(own, family)
    for study in experiments[""].evaluate.studies:
        for method in study.methods:
            own = experiments.get(method)
            for target in [size.spec() for size in study.sizes]:
                with _named(f"evaluate.studies: {study.name}: {method}: {target.name}"):
                    family.resolve(target)
                    if own is not None:
                        _check_size(own, family, target, own.initialise.scalers == "resample")


def _resampled(experiment: Experiment, family: Family) -> tuple[Resampling, TargetSpec]:
    """The rule that reads sizes off the auxiliary model, and that model's size."""
    wanted = experiment.templates.auxiliary
    size = TargetSpec(wanted.embed_dim, wanted.depth) if wanted else family.size
    with _named("templates.auxiliary"):
        return distil.resampling(experiment), family.resolve(size)


def _check_stage1(experiment: Experiment, family: Family) -> None:
    """Templates, auxiliary model and every size that stage 1 samples."""
    settings = experiment.templates
    with _named("templates"):
        spec = settings.spec(family.head_dim, family.mlp_ratio)
        spec.check(spec.shape(family.size), whole=True)
        _check_counts(spec, family, settings.start)
    rule, auxiliary = _resampled(experiment, family)
    if settings.auxiliary is not None:
        with _named("templates.auxiliary"):
            resample({}, family.size, auxiliary, spec, rule)
            spec.check(spec.shape(auxiliary), whole=True)
    for target in experiment.distil.sampled:
        with _named(f"distil.sizes: {target.name}"):
            _check_size(experiment, family, target, read_off=True)


def _check_size(experiment: Experiment, family: Family, target: TargetSpec, read_off: bool) -> TargetSpec:
    """The size in full, which the templates can build and, where it is ``read_off``, the width map reaches."""
    spec, full = experiment.templates.spec(family.head_dim, family.mlp_ratio), family.resolve(target)
    spec.check(spec.shape(full))
    if read_off:
        rule, auxiliary = _resampled(experiment, family)
        resample({}, auxiliary, full, spec, rule)  # of no tensors: only whether the width map exists
    return full


def _check_sizes(experiment: Experiment, family: Family) -> None:
    _check_stage1(experiment, family)
    seen: dict[TargetSpec, str] = {}
    for target in experiment.target_specs():
        with _named(f"targets: {target.name}"):
            full = _check_size(experiment, family, target, experiment.initialise.scalers == "resample")
        if full in seen:
            raise WaveError(f"targets: {target.name} is the same size as {seen[full]}; leave one out")
        seen[full] = target.name


def _check_counts(spec: TemplateSpec, family: Family, start: str) -> None:
    for kind in KINDS if start != "random" else ():
        blocks = family.size.depth * math.prod(spec.grid(kind, spec.shape(family.size)))
        if spec.counts[kind] > blocks:
            a, b = spec.blocks[kind]
            text = f"count of {kind} is {spec.counts[kind]}, but the ancestor has only {blocks} blocks of {a}x{b}"
            raise WaveError(f"{text}; use at most {blocks}")


def _check_templates(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> None:
    """Templates that an earlier run left are read, as stage 2 would."""
    origin: dict[str, Any] | None = workspace.record(workspace.ancestor, ancestor_key(experiment, dataset))
    if origin is not None and workspace.record(workspace.templates, distil.key(experiment, origin)) is not None:
        try:
            Templates.load(workspace.templates)
        except WaveError as error:
            raise WaveError(f"{error}; or remove {workspace.templates} and run again") from None
