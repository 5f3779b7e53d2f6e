"""Starting Ray on this machine, or joining a cluster."""

import os
import signal
from typing import Any

import ray


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_ray(address: str | None, *, cpus: int | None = None) -> None:
    """Start Ray on this machine, with this many of its cores (None: all), or join the cluster at `address`.

    SIGTERM goes on to mean what it meant before: Ray's own handler prints a stack and aborts.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": cpus or cpu_count()}
    elif cache := os.environ.get("REPROGRAMMING_CACHE"):
        options |= {"runtime_env": {"env_vars": {"REPROGRAMMING_CACHE": cache}}}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address=address or "local", **options)
    signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)
