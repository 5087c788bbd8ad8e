"""The section [mlflow]: where results are registered."""

from typing import Annotated

from pydantic import Field

from pipelines.config.fields import RegistryName
from pipelines.config.validation import Section


class Mlflow(Section):
    """Where results are registered."""

    tracking_uri: Annotated[str, Field(max_length=2048, repr=False)] = ""
    """Address of the MLflow store. Default: SQLite, `mlflow.db` in the folder where the command
    runs. Credentials belong in `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, not here.
    """
    experiment: RegistryName = ""
    """MLflow experiment that runs are logged to. Default: the run's name."""
    registered_model: RegistryName = ""
    """Registered model that every size becomes a version of, under an alias such as `d064-l06`.
    Default: the run's name."""
