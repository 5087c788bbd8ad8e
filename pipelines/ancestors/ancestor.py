"""The trained model that templates come from, as workers see it: its key, its training, its accuracy, its logits."""

from typing import cast

from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.timm_models import check_classifies, create
from pipelines.config.experiment import Experiment
from pipelines.data.dataset import Dataset


def named(experiment: Experiment, dataset: Dataset, device: str | None = None) -> VisionTransformer:
    """A model of ``ancestor.architecture`` that reads the data, unless ``ancestor.model_args`` says otherwise."""
    channels, size, _ = dataset.shape
    own = {"img_size": size, "in_chans": channels, "num_classes": len(dataset.classes)}
    name = cast(str, experiment.ancestor.architecture)
    return check_classifies(create(name, {**own, **experiment.ancestor.model_args}, "ancestor", device), name)
