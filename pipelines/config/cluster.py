"""The section [cluster]: which Ray a run uses."""

from typing import Self

from pydantic import model_validator

from pipelines.config.fields import Count
from pipelines.config.validation import Section, SettingError


class Cluster(Section):
    """Which Ray: "" starts one on this machine, "auto" joins the one here, ``ray://host:port`` another."""

    address: str = ""
    num_cpus: Count | None = None

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.address and self.num_cpus is not None:
            raise SettingError("num_cpus", f"has no effect with address={self.address!r}; leave it out")
        return self
