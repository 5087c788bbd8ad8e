"""One undisturbed run that the disturbed ones are compared with, and the table at the end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.support import SIZES, Row, compare, different, run

_ROWS = pytest.StashKey[list[Row]]()
Tally = Callable[..., None]
Note = Callable[[str, int], None]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    run(folder)
    return folder


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count a fault for the table, then assert that nothing is lost, done twice or different."""

    def count(
        fault: str,
        folder: Path,
        before: dict[str, int],
        tried: int = 1,
        reference: Path | None = None,
        uri: str = "",
        sizes: tuple[str, ...] = SIZES,
    ) -> None:
        lost, twice = compare(folder, before, uri, sizes)
        request.config.stash.setdefault(_ROWS, []).append(Row(fault, tried, lost, twice))
        assert not lost and not twice, (lost, twice)
        if reference is not None:
            assert different(folder, reference, sizes) == []

    return count


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Count a fault that ends before any size is made: nothing there to lose or to do twice."""
    return lambda fault, tried: request.config.stash.setdefault(_ROWS, []).append(Row(fault, tried, [], []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if rows:
        width = max(len(row.fault) for row in rows)
        terminalreporter.section("faults")
        terminalreporter.write_line(f"{'fault':{width}}  tried  lost  done twice")
        for row in rows:
            terminalreporter.write_line(f"{row.fault:{width}}  {row.tried:5}  {len(row.lost):4}  {len(row.twice):10}")
