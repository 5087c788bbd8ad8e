"""Runs the command line many times for one start-up: imports everything once, then forks a process for each command.

A request is a line of JSON on stdin. ``{"start": {"argv", "cwd", "env", "out"}}`` forks ``python -m pipelines ARGV``,
its output in the files OUT.out and OUT.err, and answers its process id; ``{"wait": pid}`` answers the exit status.
The child runs ``pipelines/__main__.py`` as the interpreter would, but for the tidying up after it, which would copy
every page of the parent (0.7 s of CPU a command).
"""

import gc
import json
import os
import runpy
import sys
import traceback
from typing import Any

import pipelines.cli.main
import pipelines.comparison.evaluate
import pipelines.comparison.forecast
import pipelines.registry.listing
import pipelines.registry.query
import pipelines.report
import pipelines.stages.run  # noqa: F401 (what the commands need, once)


def serve() -> dict[str, Any]:
    """Answer requests until stdin ends; returns in a forked child, with what it is to run."""
    gc.collect()
    gc.freeze()  # or the first collection in each child would copy every page
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                return request["start"]
        print(json.dumps(answer), flush=True)
    os._exit(0)


start = serve()
os.chdir(start["cwd"])
os.environ.update(start["env"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, ending in ((1, "out"), (2, "err")):
    os.dup2(os.open(f"{start['out']}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv = ["pipelines", *start["argv"]]
status: Any = 0
try:
    runpy.run_module("pipelines", run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code
except BaseException:  # noqa: BLE001 (as the interpreter does)
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status if isinstance(status, int) else bool(status))
