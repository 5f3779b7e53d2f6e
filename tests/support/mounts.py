"""Small and read-only file systems, where the machine lets a test mount one."""

import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(place, *, n_bytes):
    """Give a directory with this much room, on a file system of its own."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)  # a failed test's traceback may hold a file open


@contextmanager
def read_only(place, *, filled_by=None):
    """Give a directory that nobody can write, root included, once it has been filled."""
    with small_disk(place, n_bytes=1 << 20):
        if filled_by is not None:
            filled_by(place)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        yield place
