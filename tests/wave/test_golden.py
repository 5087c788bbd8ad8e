"""Weights and losses stay what they are: a change of structure changes no bit, and a change of
numbers is deliberate.

After a deliberate change, `python -m tests.wave.golden` writes the new numbers; say in the commit
message why.
"""

import json
import math

import pytest

from tests.wave.golden import FILE, measure

GOLDEN = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def found() -> dict:
    return measure()


def test_weights_are_what_they_were(found: dict):
    assert set(found["weights"]) == set(GOLDEN["weights"])
    same_machine = found["machine"] == GOLDEN["machine"]
    wrong = []
    for name, wanted in GOLDEN["weights"].items():
        have = found["weights"][name]
        near = all(
            math.isclose(have[k], wanted[k], rel_tol=1e-4, abs_tol=1e-2) for k in ("sum", "squares")
        )
        if not near or (same_machine and have["sha256"] != wanted["sha256"]):
            wrong.append(name)
    assert not wrong


def test_losses_are_what_they_were(found: dict):
    tolerance = 1e-6 if found["machine"] == GOLDEN["machine"] else 1e-3
    assert set(found["losses"]) == set(GOLDEN["losses"])
    for name, wanted in GOLDEN["losses"].items():
        assert len(wanted) == 20
        assert found["losses"][name] == pytest.approx(wanted, abs=tolerance), name
