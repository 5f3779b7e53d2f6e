"""The sound files of a data set: whether all are there and whole, their sizes, rates, channels and lengths."""

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile

from harness.common.progress import Progress
from harness.data.extraction import Unopened
from harness.data.openmic import audio_name
from harness.data.problems import Problems
from harness.features.audio import is_ogg, regular_size, why_not_whole, why_too_large, why_too_long, why_unopened

CORRUPTED_TRACKS = frozenset(
    "071826 071827 087435 095253 095259 095263 102144 113025 113604 138485".split()  # noqa: SIM905
)
"""Tracks of the Free Music Archive that are known to be damaged, by the first six characters of their clips' keys."""
MISSING, UNREADABLE, UNOPENED = "missing audio", "unreadable audio", "audio that cannot be opened"
N_SAMPLED = 20
_THREADS = 8

_Header = tuple[int, int, int]
"""Sample rate in Hz, channels, frames."""


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
    """Add each clip that is missing, no file, empty or unreadable; return what the others are, None without a folder.

    Reads all clips, or a few, spread evenly, and those that are known to be damaged; decodes none.
    """
    if not folder.is_dir():
        problems.add(MISSING, f"no such folder: {folder}")
        return None
    sizes, unopened = _look_at(folder)
    names = {key: audio_name(key) for key in keys}
    there = {key: name for key, name in names.items() if name in sizes}
    filled = [key for key, name in there.items() if sizes[name]]
    headers = _headers(folder, {key: names[key] for key in (filled if reads_all else _spread(filled))}, progress)
    unopened |= {names[key]: header.reason for key, header in headers.items() if isinstance(header, Unopened)}
    damaged = {key: "empty, a file of 0 bytes" for key, name in there.items() if not sizes[name]}
    damaged |= {key: header for key, header in headers.items() if isinstance(header, str)}
    _add(problems, names, there=sizes, unopened=unopened, damaged=damaged)
    read = [header for header in headers.values() if isinstance(header, tuple)]
    seconds = [frames / rate for rate, _, frames in read]
    return Audio(
        n_files=len(there),
        n_bytes=sum(sizes[name] for name in there.values()),
        n_strangers=len(sizes.keys() - set(names.values())),
        n_read=len(read),
        kinds=Counter((rate, channels) for rate, channels, _ in read),
        seconds=(min(seconds, default=0.0), max(seconds, default=0.0)),
        damaged=tuple(sorted(key for key in damaged if key[:6] in CORRUPTED_TRACKS)),
    )


def _add(
    problems: Problems,
    names: Mapping[str, str],
    *,
    there: Collection[str],
    unopened: Mapping[str, str],
    damaged: Mapping[str, str],
) -> None:
    """Add what is wrong with clips, `names` and `damaged` by key, `there` and `unopened` by name."""
    for name in names.values():
        if name in unopened:
            problems.add(UNOPENED, f"{name}: {unopened[name]}")
        elif name not in there:
            problems.add(MISSING, name)
    for key, reason in sorted(damaged.items()):
        if key[:6] not in CORRUPTED_TRACKS:
            problems.add(UNREADABLE, f"{names[key]}: {reason}")


def _headers(folder: Path, names: dict[str, str], progress: Progress) -> dict[str, _Header | str | Unopened]:
    """Return by key what `_header` says of each file."""
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = pool.map(_header, [folder / name for name in names.values()])
        return dict(zip(names, progress(headers, total=len(names), label="headers"), strict=True))


def _look_at(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Return the bytes of each file, and why whatever else is there is none, by its folder and name."""
    sizes, unopened = dict[str, int](), dict[str, str]()
    for path in (path for subfolder in folder.iterdir() if subfolder.is_dir() for path in subfolder.iterdir()):
        name = f"{path.parent.name}/{path.name}"
        try:
            sizes[name] = regular_size(path)
        except OSError as error:
            unopened[name] = why_unopened(path, error)
    return sizes, unopened


def _spread(keys: list[str]) -> list[str]:
    """Return a few of the keys, evenly spread, and those that are known to be damaged."""
    step = max(len(keys) / N_SAMPLED, 1.0)
    few = [keys[int(i * step)] for i in range(min(N_SAMPLED, len(keys)))]
    return list(dict.fromkeys(few + [key for key in keys if key[:6] in CORRUPTED_TRACKS]))


def _header(path: Path) -> _Header | str | Unopened:
    """Return what a file says it holds; or why it cannot be read, as far as that shows without decoding it."""
    try:
        if too_large := why_too_large(regular_size(path)):
            return too_large
        content = path.read_bytes()
    except OSError as error:
        return Unopened(why_unopened(path, error))
    if is_ogg(content) and (lacking := why_not_whole(content)):
        return lacking
    try:
        info = soundfile.info(io.BytesIO(content))
    except soundfile.SoundFileError as error:
        return f"not readable as sound ({getattr(error, 'error_string', error)})"
    rate, channels, frames = int(info.samplerate), int(info.channels), int(info.frames)
    if frames <= 0:
        return "holds no samples"
    return why_too_long(frames, channels, rate) or (rate, channels, frames)
