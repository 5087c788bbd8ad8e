"""The image that every node runs: Ray's own, our pinned packages, our code."""

from .kubernetes import CODE
from .values import Values


def dockerfile(values: Values) -> str:
    """Text of the Dockerfile; build it in the root of a checkout."""
    pins = " \\\n    ".join(f"'{package}=={version}'" for package, version in sorted(values.packages.items()))
    tag = f"{values.versions.ray}-py{values.versions.python.replace('.', '')}"
    return f"""# Built in the root of a checkout: docker build -f FILE -t {values.image} .
# torch brings CUDA itself, so Ray's CPU image serves machines with GPUs too, once the container is given them: on
# Kubernetes by the device plugin, on rented machines by the variables in run_options of machines/*.yaml.
FROM rayproject/ray:{tag}
RUN pip install --no-cache-dir \\
    {pins}
COPY --chown=ray wave {CODE}/wave
COPY --chown=ray pipelines {CODE}/pipelines
COPY --chown=ray pyproject.toml {CODE}/
WORKDIR {CODE}
"""
