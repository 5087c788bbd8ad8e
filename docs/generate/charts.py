"""``python -m docs.generate.charts``: the charts on the pages, from the committed results and artifacts."""

import json
import shutil
import tempfile
from pathlib import Path

from pipelines.config.experiment import load
from pipelines.report.comparison import sections
from pipelines.report.drawing import png
from pipelines.report.evidence import Evidence
from pipelines.report.run_page import picture

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs/pictures"
SHOWN = {"full_steps": "curves", "share_curve": "share", "templates": "templates", "layers": "layers"}
"""Figure of the comparison's report -> end of its file's name."""


def main() -> None:
    """Write every chart."""
    data = json.loads((ROOT / "benchmarks/results/fashion_mnist_run.json").read_text())
    (OUT / "fashion_mnist.png").write_bytes(png(picture(data | {"name": "Fashion-MNIST"}, data["sizes"])))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "benchmarks/artifacts/fashion-mnist", folder, dirs_exist_ok=True)
        file = ROOT / "pipelines/experiments/fashion_mnist_comparison.toml"
        for part in sections(Evidence(load(file, [f"output={folder}"]))):
            for name, _, figure in part.figures:
                if name in SHOWN:
                    (OUT / f"fashion_mnist_{SHOWN[name]}.png").write_bytes(png(figure))


if __name__ == "__main__":
    main()
