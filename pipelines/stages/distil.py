"""Stage 1: the ancestor condensed into templates, on Ray Train, at one size or at many sampled sizes at once."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from ray.train import get_context
from ray.train.collective import barrier
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pipelines.ancestors.reading import load_directory
from pipelines.ancestors.teacher import teacher_of
from pipelines.config.experiment import Experiment
from pipelines.data.batches import evaluation_batches, training_batches
from pipelines.data.dataset import Dataset
from pipelines.runtime.console import say
from pipelines.runtime.keys import IMAGE_CHANGES, key_of, settings_at
from pipelines.runtime.workspace import Workspace
from pipelines.stages.training import Work, fit
from wave.canonical_form import canonical
from wave.condensation import condense
from wave.errors import WaveError
from wave.export import save_model
from wave.family import Family
from wave.measure import accuracy, num_parameters
from wave.multisize import MultiSize, SizeSampler, inverse_cost
from wave.resampling import Resampling
from wave.spec import TargetSpec
from wave.storage import Templates
from wave.teacher import Teacher

_TOKENS = 8192
"""How many of the ancestor's say what carries most in it."""


RESAMPLING_DEPENDS_ON = (
    "seed",
    "initialise.depth",
    "initialise.width",
    "initialise.width_scale",
    "initialise.symmetry",
    "initialise.symmetry_strength",
)
"""Settings of :func:`resampling`; see :mod:`pipelines.runtime.keys`."""
STAGE1_DEPENDS_ON = (
    "seed",
    "distil.recipe",
    "distil.sizes",
    "distil.sizes_per_step",
    "distil.cost_power",
    "distil.auxiliary",
    "distil.feature_weight",
    "distil.anneals",
    *IMAGE_CHANGES,
)
"""Settings of the training that is stage 1, whatever is trained."""
TEMPLATES_DEPEND_ON = ("templates", *RESAMPLING_DEPENDS_ON, *STAGE1_DEPENDS_ON)
"""Settings that decide what stage 1 makes of an ancestor."""


def resampling(experiment: Experiment) -> Resampling:
    """The configuration's rule for reading a size off the auxiliary model."""
    settings = experiment.initialise
    strength = settings.symmetry_strength
    rule = Resampling(settings.depth, settings.width, settings.width_scale, settings.symmetry, seed=experiment.seed)
    return rule if strength is None else replace(rule, strength=strength)


def sampler(experiment: Experiment) -> SizeSampler | None:
    """What draws the further sizes of each step; None where stage 1 has one size."""
    rules = experiment.distil
    specs = rules.sampled
    weights = inverse_cost(specs, rules.cost_power)
    return SizeSampler(specs, rules.sizes_per_step, experiment.seed, weights) if specs else None


def key(experiment: Experiment, origin: Mapping[str, Any]) -> str:
    """The key of the templates; ``origin`` is the ancestor's record."""
    return key_of("templates", origin["key"], settings_at(experiment, TEMPLATES_DEPEND_ON))


def distil(experiment: Experiment, dataset: Dataset, workspace: Workspace, origin: dict[str, Any]) -> dict[str, Any]:
    """Put the templates' artifact into ``workspace.templates``, unless it is there, and return its record.

    ``origin`` is the ancestor's record. The record holds the artifact's digest, the auxiliary model's accuracy, and the
    share of the ancestor's parameters that the templates hold. Raises :class:`WaveError`.
    """
    own, title = key(experiment, origin), _title(workspace)
    done = workspace.kept(workspace.templates, own)
    if done is not None:
        say(f"{title}: templates already there, auxiliary accuracy {done['accuracy']:.3f}")
        return done
    name = f"templates-{own}"
    say(f"{title}: distilling templates on {dataset.num_rows('train')} images")
    reached = fit(experiment, dataset, workspace, name, _build)
    templates = Templates.load(workspace.templates)
    share = templates.spec.num_parameters() / origin["parameters"]
    exchanged = num_parameters(templates.auxiliary()) / origin["parameters"]
    say(
        f"{title}: {templates.spec.num_parameters()} template parameters, {share:.1%} of the ancestor's; "
        f"auxiliary accuracy {reached:.3f}, ancestor {origin['accuracy']:.3f}; "
        f"workers exchange {exchanged:.1%} of the dense model's gradients"
    )
    record = {
        "exchanged": exchanged,
        "accuracy": reached,
        "share": share,
        "digest": templates.digest,
        "parameters": templates.spec.num_parameters(),
    }
    return workspace.finish(workspace.templates, own, record)


def _title(workspace: Workspace) -> str:
    return f"stage 1 of {workspace.root.name}" if workspace.origin else "stage 1"


def _canonical(experiment: Experiment, dataset: Dataset, workspace: Workspace, teacher: Teacher) -> VisionTransformer:
    """The ancestor's canonical form, made once and kept for every worker and resume: elsewhere it could have other
    signs."""
    folder = workspace.canonical
    own = key_of("canonical", workspace.noted(workspace.ancestor).get("key"), dataset.digest, experiment.seed)
    try:
        record = workspace.record(folder, own)
        if get_context().get_world_rank() == 0 and (record is None or workspace.changed(folder, record)):
            tokens = cast(int, teacher.model.get_submodule("patch_embed").num_patches)
            count = math.ceil(_TOKENS / tokens)
            images = next(training_batches(dataset, experiment.data.unchanged, count, experiment.seed)()).images
            save_model(canonical(teacher.model, teacher.matched(images)), folder, dataset.mean, dataset.std)
            workspace.finish(folder, own, {})
    finally:  # whatever happened: the others wait
        barrier()
    return load_directory(folder)[0]


def _build(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> Work:
    teacher, start = teacher_of(workspace, dataset), experiment.templates.start
    if start == "canonical":  # which is compared with the students channel by channel, so it teaches too
        teacher.model, start = _canonical(experiment, dataset, workspace, teacher), "svd"
    family = Family.of(teacher.model)
    spec = experiment.templates.spec(family.head_dim, family.mlp_ratio)
    rule = resampling(experiment)
    wanted = experiment.templates.auxiliary
    size = family.resolve(TargetSpec(wanted.embed_dim, wanted.depth) if wanted else family.size)
    model = condense(teacher.model, spec, start=start, size=size, options=rule, seed=experiment.seed)
    for target in experiment.distil.sampled:
        spec.check(spec.shape(target))

    def keep(trained: nn.Module, metrics: dict[str, Any]) -> float:
        if not isinstance(trained, MultiSize):
            raise WaveError(f"stage 1 ended with {type(trained).__name__}, not a MultiSize model")
        device = next(trained.parameters()).device
        reached = accuracy(trained.auxiliary, evaluation_batches(dataset, experiment.data, 256)(), device)
        origin = workspace.noted(workspace.ancestor)  # whatever its key: a worker need not see a local source
        known = {k: origin.get(k) for k in ("key", "accuracy")}
        info = {
            "ancestor": {
                "source": experiment.ancestor.source,
                "architecture": family.architecture,
                "parameters": num_parameters(teacher.model),
                **known,
            },
            "data": {"digest": dataset.digest, "mean": list(dataset.mean), "std": list(dataset.std)},
            "classes": list(dataset.classes),
            "metrics": {"accuracy": reached, **{k: metrics[k] for k in ("steps", "workers")}},
        }
        Templates.of(trained.auxiliary, family, rule, info).save(workspace.templates)
        return reached

    rules = experiment.distil
    sizes = MultiSize(model, family, size, rule, always=rules.auxiliary)
    drawn = sampler(experiment)
    return Work(_title(workspace), rules.recipe, sizes, keep, teacher, drawn, rules.feature_weight, rules.anneals)
