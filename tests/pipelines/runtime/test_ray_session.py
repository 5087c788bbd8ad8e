"""A Ray that does not start is one clear line; what is a fault of ours stays a traceback."""

from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from pipelines.config.cluster import Cluster
from pipelines.runtime.ray_session import session
from wave.errors import WaveError


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(Exception("The current node timed out during startup.\nMore."), WaveError), (KeyError("ours"), KeyError)],
)
def test_only_what_ray_says_becomes_a_line(
    raised: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raylet cannot be made late in less than Ray's half minute, so what Ray then raises is raised in its place."""

    def late(**options: Any) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(expected) as found, session(Cluster()):
        pass
    if expected is WaveError:
        assert str(found.value).endswith("no Ray session on this machine: The current node timed out during startup.")


def test_a_refused_token_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: Any) -> None:
        raise AuthenticationError("no token")

    monkeypatch.setattr(ray, "init", refused)
    with (
        pytest.raises(WaveError, match=r"no token.*; set RAY_AUTH_TOKEN .*MODE=disabled if"),
        session(Cluster()),
    ):
        pass
