"""The section [cluster]: which Ray a run uses."""

from typing import Self

from pydantic import model_validator

from pipelines.config.fields import Count
from pipelines.config.validation import Section, SettingError


class Cluster(Section):
    """Which Ray cluster runs it."""

    address: str = ""
    """Ray cluster to use: empty starts one on this machine, `auto` joins the one running here,
    `ray://HOST:PORT` connects to another. `python -m cluster submit` sets it for you."""
    num_cpus: Count | None = None
    """CPU cores that a cluster started here may use. Default: all that this process may use."""

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.address and self.num_cpus is not None:
            raise SettingError("num_cpus", f"has no effect with address={self.address!r}; leave it out")
        return self
