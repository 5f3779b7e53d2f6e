"""Starting Ray on this machine, or joining a cluster."""

import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.common.text import first_line

_SOCKET_SECONDS = 5.0

_GPU_FILES = ("nvidia[0-9]*", "nvidia-caps", "kfd", "dxg", "davinci[0-9]*", "accel*")


def cpu_count(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use: its affinity, or less under a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota of this process's cgroups, v1 or v2, in cores; None if there is none."""
    quotas = (_quota_in(folder) for folder in _cgroup_folders(root))
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's cgroups for CPU, each with its parents up to the mount."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for top in (mount / controllers, mount / "cpu") if controllers else (mount,):
            folder = top / path.lstrip("/")
            yield from (f for f in (folder, *folder.parents) if f.is_relative_to(top))


def _quota_in(folder: Path) -> float | None:
    try:
        if (v2 := folder / "cpu.max").exists():
            quota, period = v2.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max" is no number
        return None


def check_fits(*, cpus: int | None, gpus: float | None, devices: Path = Path("/dev")) -> None:
    """Check that one trial fits this machine, before Ray counts exactly.

    Raises:
        ValueError: it has fewer cores, or no GPU.
    """
    if (cpus or 0) > cpu_count():
        raise ValueError(f"cpus-per-trial={cpus}: a trial does not fit, this machine has {cpu_count()} cores")
    if gpus and devices.is_dir() and not any(any(devices.glob(name)) for name in _GPU_FILES):
        raise ValueError(f"gpus-per-trial={gpus:g}: a trial does not fit, this machine has no GPU")


def start_ray(address: str | None, *, cpus: int | None = None) -> None:
    """Start Ray on this machine, with this many of its cores (None: all), or join the cluster at `address`.

    Signals keep their handlers: Ray's own for SIGTERM prints a stack and aborts.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came while Ray started.
        ValueError: no cluster answers at `address`.
        RuntimeError: Ray cannot start here.
    """
    import ray  # noqa: PLC0415  takes seconds, which the check of a flag need not wait for

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": cpus or cpu_count()}
    elif cache := os.environ.get("REPROGRAMMING_CACHE"):
        options |= {"runtime_env": {"env_vars": {"REPROGRAMMING_CACHE": cache}}}
    try:
        with delayed_interrupts():
            ray.init(address=address or "local", **options)
    except Exception as error:
        cause = f"{type(error).__name__}: {first_line(error)}"
        if address is not None:
            raise ValueError(f"address={address}: cannot join a Ray cluster there ({cause})") from error
        raise RuntimeError(
            f"Ray cannot start ({cause}); RAY_TMPDIR=DIR moves its files to a short path on a disk with space, and "
            "RAY_AUTH_MODE=disabled does without a token file in the home directory"
        ) from error


def check_address(address: str | None) -> None:
    """Check that something listens at HOST:PORT, which Ray would wait for and then report in many lines.

    Raises:
        ValueError: nothing does.
    """
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _SOCKET_SECONDS).close()
    except OSError as error:
        raise ValueError(f"address={address}: no Ray cluster answers there ({error.strerror or error})") from error


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a SIGINT or a SIGTERM at the end; a second signal does not wait.

    Ray forks while it starts. Python runs pending signal handlers inside its fork hooks and ignores exceptions there,
    so a Ctrl-C would be lost.
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
