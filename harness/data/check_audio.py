"""The sound files of a data set: whether all are there and can be read, their sizes, rates, channels and lengths."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile

from harness.data.frontend import why_too_large, why_too_long
from harness.data.openmic import audio_name
from harness.data.problems import Problems
from harness.data.progress import Progress

CORRUPTED_TRACKS = frozenset(
    "071826 071827 087435 095253 095259 095263 102144 113025 113604 138485".split()  # noqa: SIM905
)
"""Tracks of the Free Music Archive that are known to be damaged, by the first six characters of their clips' keys."""
MISSING, UNREADABLE = "missing audio", "unreadable audio"
N_SAMPLED = 20
_THREADS = 8


@dataclass(frozen=True)
class Audio:
    """The sound files: how many of the keys have one, their bytes, and of those whose header was read what it says.

    `kinds` counts (sample rate in Hz, channels); `seconds` is the shortest and the longest; `n_strangers` are files
    that belong to no key; `damaged` are clips of tracks that are known to be, and indeed cannot be read.
    """

    n_files: int
    n_bytes: int
    n_strangers: int
    n_read: int
    kinds: Counter[tuple[int, int]]
    seconds: tuple[float, float]
    damaged: tuple[str, ...]


def check_audio(
    folder: Path, keys: Sequence[str], problems: Problems, *, reads_all: bool, progress: Progress
) -> Audio | None:
    """Add each clip that is missing, empty or unreadable; return what the others are. None without a folder.

    Reads the headers of all clips, or of a few, spread evenly, and of those that are known to be damaged.
    """
    if not folder.is_dir():
        problems.add(MISSING, f"no such folder: {folder}")
        return None
    sizes = _sizes(folder)
    names = {key: audio_name(key) for key in keys}
    for name in (name for name in names.values() if name not in sizes):
        problems.add(MISSING, name)
    there = [key for key, name in names.items() if name in sizes]
    empty = {key: "empty, a file of 0 bytes" for key in there if not sizes[names[key]]}
    filled = [key for key in there if key not in empty]
    chosen = filled if reads_all else _spread(filled)
    headers = _headers(folder, {key: names[key] for key in chosen}, progress)
    damaged = empty | {key: header for key, header in headers.items() if isinstance(header, str)}
    for key, reason in sorted(damaged.items()):
        if key[:6] not in CORRUPTED_TRACKS:
            problems.add(UNREADABLE, f"{names[key]}: {reason}")
    read = [header for header in headers.values() if not isinstance(header, str)]
    seconds = [frames / rate for rate, _, frames in read]
    return Audio(
        n_files=len(there),
        n_bytes=sum(sizes[names[key]] for key in there),
        n_strangers=len(sizes.keys() - set(names.values())),
        n_read=len(read),
        kinds=Counter((rate, channels) for rate, channels, _ in read),
        seconds=(min(seconds, default=0.0), max(seconds, default=0.0)),
        damaged=tuple(sorted(key for key in damaged if key[:6] in CORRUPTED_TRACKS)),
    )


def _headers(folder: Path, names: dict[str, str], progress: Progress) -> dict[str, tuple[int, int, int] | str]:
    """Return by key what `_header` says of each file."""
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = pool.map(_header, [folder / name for name in names.values()])
        return dict(zip(names, progress(headers, total=len(names), label="headers"), strict=True))


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file, by its folder and name."""
    return {
        f"{subfolder.name}/{file.name}": file.stat().st_size
        for subfolder in folder.iterdir()
        if subfolder.is_dir()
        for file in subfolder.iterdir()
        if file.is_file()
    }


def _spread(keys: list[str]) -> list[str]:
    """Return a few of the keys, evenly spread, and those that are known to be damaged."""
    step = max(len(keys) / N_SAMPLED, 1.0)
    few = [keys[int(i * step)] for i in range(min(N_SAMPLED, len(keys)))]
    return list(dict.fromkeys(few + [key for key in keys if key[:6] in CORRUPTED_TRACKS]))


def _header(path: Path) -> tuple[int, int, int] | str:
    """Return sample rate, channels and frames; or why they cannot be read."""
    try:
        if too_large := why_too_large(path.stat().st_size):
            return too_large
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as error:
        return str(error).removeprefix(f"Error opening {str(path)!r}: ")
    rate, channels, frames = int(info.samplerate), int(info.channels), int(info.frames)
    if frames <= 0:
        return "holds no samples"
    return why_too_long(frames, channels, rate) or (rate, channels, frames)
