"""Starting Ray on this machine, or joining a cluster."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_ray(address: str | None, *, cpus: int | None = None) -> None:
    """Start Ray on this machine, with this many of its cores (None: all), or join the cluster at `address`.

    Signals keep their handlers: Ray's own for SIGTERM prints a stack and aborts.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came while Ray started.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": cpus or cpu_count()}
    elif cache := os.environ.get("REPROGRAMMING_CACHE"):
        options |= {"runtime_env": {"env_vars": {"REPROGRAMMING_CACHE": cache}}}
    with delayed_interrupts():
        ray.init(address=address or "local", **options)


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a SIGINT or a SIGTERM at the end; a second signal does not wait.

    Ray forks while it starts. Python runs the handlers of pending signals inside its hooks of a fork, and ignores an
    exception there: one Ctrl-C in ten was lost.
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if received:
            raise KeyboardInterrupt
