"""Every file that people deploy, written from one file of values."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cluster.deploy import image, kubernetes, machines, mlflow_server, network
from cluster.deploy.values import Values, load
from cluster.errors import ClusterError

VALUES = Path(__file__).parent / "values.toml"


def _yaml(documents: Iterable[dict[str, Any]]) -> str:
    class Plain(yaml.SafeDumper):
        """Writes a list that stands in two places twice; anchors are hard to read."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump_all(documents, Dumper=Plain, sort_keys=False, width=120)


def files(values: Values, root: Path) -> dict[str, str]:
    """Name -> text of every file; `root` is the checkout with the run."""
    return {
        "Dockerfile": image.dockerfile(values),
        "mlflow-server.sh": mlflow_server.script(values),
        "kubernetes/storage.yaml": _yaml([kubernetes.storage(values)]),
        "kubernetes/network.yaml": _yaml(network.policies(values)),
        "kubernetes/mlflow.yaml": _yaml(mlflow_server.manifests(values)),
        "kubernetes/raycluster.yaml": _yaml([kubernetes.ray_cluster(values)]),
        "kubernetes/rayjob.yaml": _yaml([kubernetes.ray_job(values, root)]),
        "machines/aws.yaml": _yaml([machines.aws(values)]),
        "machines/gcp.yaml": _yaml([machines.gcp(values)]),
        "machines/own.yaml": _yaml([machines.own(values)]),
    }


def write(source: Path, out: Path, root: Path) -> list[Path]:
    """Render the values in `source` into `out` and return the files written. Raises ClusterError."""
    values = load(source)
    written = []
    try:
        for name, text in files(values, root).items():
            file = out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                f"# Written by `python -m cluster render`; change {source.name} instead.\n{text}"
                if name.endswith("yaml")
                else text
            )
            written.append(file)
    except OSError as error:
        raise ClusterError(f"{out} cannot be written: {error.strerror}; choose another with --out DIR") from error
    return written
