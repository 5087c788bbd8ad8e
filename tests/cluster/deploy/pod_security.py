"""Pod Security's level "restricted", written out from the Pod Security Standards of Kubernetes 1.34."""

from collections.abc import Iterator
from typing import Any

_CAPABILITIES = {"NET_BIND_SERVICE"}
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_HANDLERS = ("httpGet", "tcpSocket")


def violations(spec: dict[str, Any], annotations: dict[str, str] | None = None) -> list[str]:
    """What the pod's `spec` breaks, one line each; empty when it may run."""
    return [*_of_the_pod(spec, annotations or {}), *_of_the_containers(spec)]


def _of_the_pod(spec: dict[str, Any], annotations: dict[str, str]) -> Iterator[str]:
    context = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for key, value in annotations.items():
        fine = value in ("", "runtime/default") or value.startswith("localhost/")
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not fine:
            yield f"annotation {key}: {value}"
    yield from _of_a_context(context, "pod")


def _of_the_containers(spec: dict[str, Any]) -> Iterator[str]:
    above = spec.get("securityContext", {})
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            name, context = container["name"], container.get("securityContext", {})
            yield from _of_a_context(context, name)
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{name}: allowPrivilegeEscalation"
            if context.get("privileged"):
                yield f"{name}: privileged"
            capabilities = context.get("capabilities", {})
            if "ALL" not in capabilities.get("drop", []):
                yield f"{name}: capabilities are not dropped"
            if {*capabilities.get("add", [])} - _CAPABILITIES:
                yield f"{name}: capabilities are added"
            if context.get("procMount", "Default") != "Default":
                yield f"{name}: procMount"
            if context.get("runAsNonRoot", above.get("runAsNonRoot")) is not True:
                yield f"{name}: runAsNonRoot"
            seccomp = context.get("seccompProfile", above.get("seccompProfile", {})).get("type")
            if seccomp not in ("RuntimeDefault", "Localhost"):
                yield f"{name}: seccompProfile"
            if any(port.get("hostPort") for port in container.get("ports", [])):
                yield f"{name}: hostPort"
            hooks = [container.get(f"{probe}Probe", {}) for probe in ("liveness", "readiness", "startup")]
            hooks += container.get("lifecycle", {}).values()
            if any(hook.get(handler, {}).get("host") for hook in hooks for handler in _HANDLERS):
                yield f"{name}: a probe's host"


def _of_a_context(context: dict[str, Any], name: str) -> Iterator[str]:
    """The rules that hold for a pod's context and for a container's alike, where they say something."""
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: hostProcess"
    if context.get("seccompProfile", {}).get("type") == "Unconfined":
        yield f"{name}: seccompProfile"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield f"{name}: appArmorProfile"
    linux = context.get("seLinuxOptions", {})
    if linux.get("type", "") not in _SELINUX or linux.get("user") or linux.get("role"):
        yield f"{name}: seLinuxOptions"
