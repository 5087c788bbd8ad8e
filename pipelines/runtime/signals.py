"""Signals that end a run as Ctrl-C does: what is done is kept, its MLflow runs are ended, and it is said."""

import contextlib
import os
import signal

_IGNORED = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup: the run is to outlive its terminal
_state = {"hung_up": False}


def catch() -> None:
    """From now on SIGTERM, and SIGHUP unless it was ignored when the program began, raise KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, interrupt)
    if not _IGNORED:
        signal.signal(signal.SIGHUP, _hang_up)


def spare_children() -> None:
    """Processes that are started from now on do not end by SIGHUP: a run needs its Ray to end well. See `catch`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hung_up() -> bool:
    """Whether SIGHUP came."""
    return _state["hung_up"]


def interrupt(*_: object) -> None:
    """A handler: what is done is kept, as after Ctrl-C."""
    raise KeyboardInterrupt


def print_nowhere() -> None:
    """Let output go nowhere: what reads it is gone, and a later line would be another error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _hang_up(*_: object) -> None:
    _state["hung_up"] = True
    try:
        for stream in (1, 2):
            os.write(stream, b"")  # a terminal that is gone refuses even this
    except OSError:
        with contextlib.suppress(OSError):
            print_nowhere()
    raise KeyboardInterrupt
