"""Work side by side in threads of the driver."""

import threading
from collections import deque
from collections.abc import Callable, Iterable


def side_by_side(works: Iterable[Callable[[], object]], at_once: int = 1) -> None:
    """Call all, ``at_once`` at a time; the first to fail ends the wait, and what it raised is raised.

    In threads: in the main one Ray Train takes Ctrl-C for itself and ends the process with code 0.
    """
    todo, raised, lock = deque(works), list[BaseException](), threading.Lock()

    def call() -> None:
        while not raised:
            with lock:
                work = todo.popleft() if todo else None
            if work is None:
                return
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (handed to the caller)
                raised.append(error)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(min(at_once, len(todo)))]
    for thread in threads:
        thread.start()
    while not raised and (alive := [thread for thread in threads if thread.is_alive()]):
        alive[0].join(0.2)
    if raised:
        raise raised[0]
