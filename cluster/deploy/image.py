"""The image that every node runs: Ray's own, our pinned packages, our code."""

from cluster.deploy.kubernetes import CODE
from cluster.deploy.values import Values

# Only the requirements are installed, not the project: the image has its folders, which `python -m` finds.
_REQUIREMENTS = """python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \\
    o = p["optional-dependencies"]; print(*p["dependencies"], *o["pipelines"], *o["server"], sep="\\n")'"""


def dockerfile(values: Values) -> str:
    """Text of the Dockerfile; build it in the root of a checkout."""
    tag = f"{values.versions.ray}-py{values.versions.python.replace('.', '')}"
    return f"""# Built in the root of a checkout: docker build -f FILE -t {values.image} .
# torch brings CUDA itself, so Ray's CPU image serves machines with GPUs too, once the container is given them: on
# Kubernetes by the device plugin, on rented machines by the variables in run_options of machines/*.yaml.
FROM rayproject/ray:{tag}
COPY --chown=ray pyproject.toml constraints.txt {CODE}/
WORKDIR {CODE}
# What pyproject.toml asks for, at the versions of constraints.txt; ray stands here so that another one is an error.
RUN {_REQUIREMENTS} > /tmp/requirements.txt \\
    && pip install --no-cache-dir -c constraints.txt -r /tmp/requirements.txt 'ray=={values.versions.ray}'
COPY --chown=ray wave {CODE}/wave
COPY --chown=ray pipelines {CODE}/pipelines
"""
