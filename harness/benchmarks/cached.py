"""A feature cache of noise, beside the same rows in one file that a memory map reads."""

import hashlib
import os
from pathlib import Path

import numpy as np

from harness.features.cache import CachedRows, FeatureCache, Recipe, Rows

MAPPED, OURS = "np.memmap", "ours"
_PACKED = "packed.npy"


def write_cache(place: Path, shape: tuple[int, int], *, n_clips: int) -> None:
    """Write noise in float16, so that reading it reads from the disk, both as a cache and as one packed file."""
    cache = _cache(place, shape)
    cache.prepare()
    noise = np.random.default_rng(0).normal(-6, 3, (64, *shape)).astype(np.float16)
    with (place / _PACKED).open("wb") as packed:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n_clips, *shape)}
        np.lib.format.write_array_header_1_0(packed, header)
        for clip in range(n_clips):
            cache.write(_digest(clip), noise[clip % 64])
            packed.write(noise[clip % 64].tobytes())
    os.sync()  # only what is on the disk can be dropped from the page cache


def open_rows(place: Path, way: str, shape: tuple[int, int]) -> Rows:
    """Open what `write_cache` wrote, as the rows of the cache or as a memory map."""
    if way == MAPPED:
        mapped: np.ndarray = np.load(place / _PACKED, mmap_mode="r")
        return mapped
    cache = _cache(place, shape)
    return CachedRows(cache, [_digest(clip) for clip in range(len(cache.stored()))], _lost)


def forget(place: Path) -> None:
    """Have the system drop all files below a folder from its page cache, as far as no process maps them."""
    for path in place.rglob("*.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cache(place: Path, shape: tuple[int, int]) -> FeatureCache:
    return FeatureCache(place, Recipe("noise", 1, {}, shape))


def _digest(clip: int) -> str:
    return hashlib.sha256(str(clip).encode()).hexdigest()


def _lost(row: int) -> np.ndarray:
    raise OSError(f"row {row} of the benchmark's cache is missing or damaged")
