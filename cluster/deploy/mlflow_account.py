"""Makes the ordinary account that runs use on an MLflow server, through the server's own REST API.

The text of this file is copied into what `python -m cluster render` writes, so it uses the standard
library only. Arguments: the server's address, and either the id of its process, with which this
ends, or a file to leave once the account is there; with a file this stays, as a container beside
the server has to. A password that changed in WAVE_MLFLOW_PASSWORD is changed on the server too, and
an account that somebody made an administrator is none afterwards.
"""

import base64
import http.client
import json
import os
import pathlib
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

PATIENCE = 1800.0  # seconds: the migration of a large store is slow


def ask(address: str, method: str, path: str, body: Mapping[str, object] | None = None) -> int:
    """The HTTP status of a request made as administrator; 0 while nobody answers."""
    user = os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME", "admin")
    pair = f"{user}:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()
    headers = {
        "Authorization": "Basic " + base64.b64encode(pair).decode(),
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/users/{path}",
        json.dumps(body).encode() if body else None,
        headers,
        method=method,
    )
    # The server is on this machine: no proxy lies between.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


def gone(process: int) -> bool:
    """Whether the server's process has ended; 0 stands for one that is not ours to watch."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def make(address: str, server: int = 0) -> None:
    """Create the account, or give it its password and take away what makes an administrator."""
    name, password = os.environ["WAVE_MLFLOW_USERNAME"], os.environ["WAVE_MLFLOW_PASSWORD"]
    if name == os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME", "admin"):
        sys.exit(f"the account is called {name}, as the administrator is; give it another name")
    account = {"username": name}
    look = "get?" + urllib.parse.urlencode(account)
    deadline = time.monotonic() + PATIENCE
    status = ask(address, "GET", look)
    while status == 0 or status >= 500:
        if gone(server) or time.monotonic() > deadline:
            sys.exit(f"no MLflow server answers at {address}")
        time.sleep(1)
        status = ask(address, "GET", look)
    if status == 404:
        steps = [("POST", "create", account | {"password": password})]
    elif status == 200:
        steps = [
            ("PATCH", "update-password", account | {"password": password}),
            ("PATCH", "update-admin", account | {"is_admin": False}),
        ]
    else:
        sys.exit(
            f"MLflow answers {status} to the administrator: is MLFLOW_AUTH_ADMIN_PASSWORD the one "
            "that the server was first started with?"
        )
    for method, path, body in steps:
        status = ask(address, method, path, body)
        if status != 200:
            sys.exit(f"MLflow answers {status} to users/{path}: a password has 12 or more characters")
    print(f"the account {name} is there", flush=True)


if __name__ == "__main__":
    # The first process of a container gets no signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    where, then = sys.argv[1:]
    make(where, int(then) if then.isdigit() else 0)
    if not then.isdigit():
        pathlib.Path(then).touch()
        while True:
            signal.pause()
