"""Being asked to end: SIGTERM does what Ctrl-C does, before Ray Tune listens and while it does."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def interrupt(_signum: int, _frame: object) -> None:
    """End what runs as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def sigterm_ends_tune_in_order() -> Iterator[None]:
    """Pass SIGTERM on as SIGUSR1, on which Tune ends in order, with its workers; on SIGTERM it aborts.

    Until Tune has put its own handler in place of ours, SIGUSR1 interrupts: by default it would end the process without
    a word.
    """
    on_usr1 = signal.signal(signal.SIGUSR1, interrupt)
    on_sigterm = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        signal.signal(signal.SIGUSR1, on_usr1)
