"""The ancestor as a teacher, and its accuracy."""

from pipelines.ancestors.reading import load_directory
from pipelines.config.experiment import Experiment
from pipelines.data.batches import evaluation_batches
from pipelines.data.dataset import Dataset
from pipelines.runtime.workspace import Workspace
from wave.measure import accuracy
from wave.teacher import Teacher


def teacher_of(workspace: Workspace, dataset: Dataset) -> Teacher:
    """The ancestor as a teacher for images normalised with the data set's statistics."""
    model, mean, std = load_directory(workspace.ancestor)
    return Teacher(model, dataset.mean, dataset.std, mean, std)


def judge(device: str, experiment: Experiment, dataset: Dataset, workspace: Workspace) -> float:
    """Its accuracy on the test split."""
    model, mean, std = load_directory(workspace.ancestor)
    from_data = (tuple(mean), tuple(std)) == (dataset.mean, dataset.std)
    judged = model if from_data else teacher_of(workspace, dataset)
    return accuracy(judged.to(device), evaluation_batches(dataset, experiment.data, 256)(), device)
