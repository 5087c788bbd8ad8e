"""Reports: a run's sizes as one page; a comparison's tables and figures as one page, pictures and Markdown."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.comparison.evaluate import SETTINGS
from pipelines.config.experiment import load
from pipelines.report.comparison import compare
from pipelines.report.run_page import run_page
from wave.errors import WaveError

__all__ = ["report"]


def report(target: str, overrides: Sequence[str] = (), into: str | None = None) -> list[Path]:
    """Write the pages of a folder (of a run, of a comparison, or both) or of an experiment's comparison, and return
    their paths. ``into`` names a Markdown file that a comparison's tables are written to as well.

    Raises :class:`WaveError` when there are no results.
    """
    path = Path(target)
    if not path.is_dir() and path.suffix == ".toml":
        return [compare(load(path, overrides), into)]
    if overrides:
        raise WaveError(f"--set has no effect on {target}; it belongs to an experiment's FILE.toml")
    settings = path / SETTINGS
    if not settings.is_file() and into is not None:
        raise WaveError(f"--into has no effect on {target}, which holds no comparison; give an experiment's FILE.toml")
    if not settings.is_file():
        return [run_page(target)]
    pages = [run_page(target)] if (path / "results.json").is_file() else []
    return [*pages, compare(load(settings), into)]
