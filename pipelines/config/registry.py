"""The section [mlflow]: where results are registered."""

from typing import Annotated

from pydantic import Field

from pipelines.config.fields import RegistryName
from pipelines.config.validation import Section


class Mlflow(Section):
    """Where results are registered. ``tracking_uri`` "" is SQLite in the folder where the command runs."""

    tracking_uri: Annotated[str, Field(max_length=2048, repr=False)] = ""
    experiment: RegistryName = ""
    registered_model: RegistryName = ""
