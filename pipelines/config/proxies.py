"""Which addresses no proxy may see, and which variable sends an address through one; imports nothing of ours."""

import os
import re
import socket
from collections.abc import MutableMapping
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

_LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.0/8")  # urllib and requests differ in two


def bypass(environment: MutableMapping[str, str], *hosts: str) -> None:
    """Let no program with this environment go through a proxy to this machine, nor to ``hosts``.

    Both spellings of the variable are set: programs differ in which of them they read first.
    """
    given = [environment.get(name, "").split(",") for name in ("no_proxy", "NO_PROXY")]
    known = [host.strip() for part in given for host in part if host.strip()]
    if "*" in known:  # means everything, and only where it stands alone
        return
    wanted = dict.fromkeys((*known, *_LOOPBACK, socket.gethostname(), *_own_address(), *hosts))
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(filter(None, wanted))


def _own_address() -> tuple[str, ...]:
    """The address by which Ray names this machine: that of the way out. Nothing is sent, and no name is looked up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect(("192.0.2.254", 9))
            return (way.getsockname()[0],)
        except OSError:
            return ()


def through(url: str) -> str:
    """``http_proxy=http://proxy:3128`` if a variable sends this address through a proxy, else ""."""
    parts = urlsplit(url)
    proxies = getproxies_environment()
    if not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    for kind in (parts.scheme, "all"):
        if value := proxies.get(kind):
            names = (f"{kind}_proxy", f"{kind}_proxy".upper())
            name = next((name for name in names if os.environ.get(name) == value), names[0])
            return f"{name}={re.sub('//[^/]*@', '//***@', value)}"
    return ""
