"""Signals that end a run: what is done is kept, as after Ctrl-C."""


def interrupt(*_: object) -> None:
    """A handler of SIGTERM: what is done is kept, as after Ctrl-C."""
    raise KeyboardInterrupt
