"""The schemas that manifests are held against, made strict: a field that no schema names is refused."""

import copy
import functools
import gzip
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

KUBERAY = Path(__file__).parents[3] / "shared" / "kuberay"
_FETCH = (
    "fetch helm-chart/kuberay-operator/crds/ray.io_{plural}.yaml of github.com/ray-project/kuberay at v1.7.0 "
    f"and put it, packed with gzip, into {KUBERAY} as {{file}}"
)

# Kubernetes itself checks metadata, so KubeRay's definitions leave it open; these are the fields that a person writes.
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
    "required": ["name"],
}


@functools.cache
def definition(plural: str) -> dict[str, Any]:
    """KubeRay's v1 schema of `plural`, strict; skips the test when the definition is not at hand."""
    file = KUBERAY / f"ray.io_{plural}.v1.7.0.yaml.gz"
    if not file.exists():
        pytest.skip(_FETCH.format(plural=plural, file=file.name))
    # The C loader where there is one: the definitions have 30,000 lines, for which the Python one takes 10 s.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(gzip.decompress(file.read_bytes()), Loader=loader)
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
    schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = _METADATA
    return strict(schema)


def whole(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The strict schema of a document of Kubernetes itself, whose `spec` is given."""
    fields = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": _METADATA, "spec": spec}
    return strict({"type": "object", "properties": fields, "required": [*fields]})


def deployment(pod: dict[str, Any]) -> dict[str, Any]:
    """The schema of a Deployment's spec around pods of the schema `pod`: the fields of apps/v1."""
    number = {"type": "integer", "minimum": 0}
    share = {"type": ["integer", "string"]}
    rolling = {"type": "object", "properties": {"maxSurge": share, "maxUnavailable": share}}
    strategy = {"type": {"enum": ["Recreate", "RollingUpdate"]}, "rollingUpdate": rolling}
    expression = {"key": {"type": "string"}, "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}}
    expression["values"] = {"type": "array", "items": {"type": "string"}}
    expressions = {"type": "array", "items": {"type": "object", "properties": expression}}
    template = {"metadata": _METADATA | {"required": ["labels"]}, "spec": pod}
    fields = {
        "replicas": number,
        "minReadySeconds": number,
        "paused": {"type": "boolean"},
        "progressDeadlineSeconds": number,
        "revisionHistoryLimit": number,
        "selector": {"type": "object", "properties": {"matchLabels": _TEXTS, "matchExpressions": expressions}},
        "strategy": {"type": "object", "properties": strategy},
        "template": {"type": "object", "properties": template, "required": [*template]},
    }
    return strict({"type": "object", "properties": fields, "required": ["selector", "template"]})


def network_policy() -> dict[str, Any]:
    """The schema of a NetworkPolicy's spec: the fields of networking.k8s.io/v1."""
    selector = {"type": "object", "properties": {"matchLabels": _TEXTS}}
    number = {"type": "integer", "minimum": 1, "maximum": 65535}
    port = {"protocol": {"enum": ["TCP", "UDP", "SCTP"]}, "port": number, "endPort": number}
    block = {
        "type": "object",
        "properties": {
            "cidr": {"type": "string"},
            "except": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["cidr"],
    }
    peer = {
        "type": "object",
        "properties": {"podSelector": selector, "namespaceSelector": selector, "ipBlock": block},
        "minProperties": 1,
        # A block of addresses stands alone.
        "if": {"required": ["ipBlock"]},
        "then": {"maxProperties": 1},
    }

    def rules(key: str) -> dict[str, Any]:
        fields = {
            "ports": {"type": "array", "items": {"type": "object", "properties": port}},
            key: {"type": "array", "items": peer},
        }
        return {"type": "array", "items": {"type": "object", "properties": fields}}

    fields = {
        "podSelector": selector,
        "policyTypes": {"type": "array", "items": {"enum": ["Ingress", "Egress"]}},
        "ingress": rules("from"),
        "egress": rules("to"),
    }
    return strict({"type": "object", "properties": fields, "required": ["podSelector"]})


def strict(schema: Any, bare: bool = True) -> Any:
    """`schema` with every object closed that does not say otherwise; with `bare` also those that list no properties."""
    if isinstance(schema, list):
        return [strict(item, bare) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {
        # Below "properties" stand names of fields, not words of the schema language.
        key: {name: strict(part, bare) for name, part in value.items()}
        if key in ("properties", "patternProperties", "definitions")
        else strict(value, bare)
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") or key == "x-kubernetes-preserve-unknown-fields"
    }
    is_object = schema.get("type") == "object" and (bare or "properties" in schema)
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if is_object and not is_open and "patternProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def check(manifest: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless `manifest` holds to `schema`."""
    error = jsonschema.exceptions.best_match(jsonschema.Draft7Validator(schema).iter_errors(manifest))
    if error:
        raise error


def part(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """The schema of the field at `path`, "[]" standing for a list's items."""
    for name in path:
        schema = schema["items"] if name == "[]" else schema["properties"][name]
    return schema
