"""``python -m pipelines.config FILE KEY=VALUE ...``: what a run of FILE with these overrides would use, as JSON.

For programs that start runs elsewhere, such as `cluster submit`: they have the one parser, its checks and its messages
without loading what it needs. Exit code 2 and one line on standard error for what ``run`` refuses.
"""

import json
import sys
from collections.abc import Sequence

from pipelines.config.experiment import parse
from pipelines.config.toml import apply_overrides, overridden, read_toml
from wave.errors import WaveError


def described(file: str, overrides: Sequence[str]) -> dict[str, object]:
    """The file with the overrides applied, and what follows from it: name, output folder, registered model.

    Raises :class:`WaveError`.
    """
    settings = apply_overrides(read_toml(file), overrides)
    experiment = parse(settings, file, overridden(overrides))
    model = experiment.mlflow.registered_model
    return {"name": experiment.name, "output": experiment.output, "registered_model": model, "settings": settings}


if __name__ == "__main__":
    try:
        print(json.dumps(described(sys.argv[1], sys.argv[2:]), default=str))
    except WaveError as mistake:
        print(" ".join(str(mistake).split()), file=sys.stderr)
        sys.exit(2)
