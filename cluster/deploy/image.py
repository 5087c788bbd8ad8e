"""The image that every node runs: Ray's own, our pinned packages, our code."""

from cluster.constants import CODE
from cluster.deploy.values import Values


def dockerfile(values: Values) -> str:
    """Text of the Dockerfile; build it in the root of a checkout."""
    ray = values.versions.ray
    base = f"rayproject/ray:{ray}-py{values.versions.python.replace('.', '')}"
    if values.versions.digest:
        start = f"FROM {base}@{values.versions.digest}"
    else:
        # Never a tag alone, which may name another image tomorrow: without a digest this does not build.
        start = f"""\
# versions.digest of values.toml is empty, so the build must be told which image this is:
#   docker buildx imagetools inspect {base} --format '{{{{.Manifest.Digest}}}}'
#   docker build --build-arg DIGEST=sha256:... -f FILE -t {values.image} .
ARG DIGEST
FROM {base}@${{DIGEST}}"""
    return f"""# Built in the root of a checkout: docker build -f FILE -t {values.image} .
# torch brings CUDA itself, so Ray's CPU image serves machines with GPUs too, once the container is given them: on
# Kubernetes by the device plugin, on rented machines by the variables in run_options of machines/*.yaml.
{start}
COPY --chown=ray requirements.lock {CODE}/
WORKDIR {CODE}
# Every package at one version and with one of the hashes that the lock names. Its Ray has to be the image's own.
RUN grep -q '^ray=={ray} ' requirements.lock \\
    || {{ echo "requirements.lock pins another Ray than versions.ray, {ray}" >&2; exit 1; }}; \\
    pip install --no-cache-dir --require-hashes -r requirements.lock
COPY --chown=ray wave {CODE}/wave
COPY --chown=ray pipelines {CODE}/pipelines
"""
