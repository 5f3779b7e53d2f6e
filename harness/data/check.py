"""Check a data set: count clips, labels and audio, and list everything that keeps a study from using it.

The rules are those of the readers and of the decoder. Where a study stops at the first broken rule, a check collects
all of them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from harness.common.progress import Progress, quiet
from harness.common.text import summarise
from harness.data.dataset import POSITIVE, ClipDataset, Problems
from harness.data.fetch import read_marker
from harness.data.formats import FORMATS, find_format
from harness.data.openmic import CORRUPTED_TRACKS, read_vggish
from harness.features.audio import decode, mixes_to_silence, why_unopened

LabelCounts = Mapping[str, Mapping[str, tuple[int, int]]]
"""By split and label: the number of clips annotated as positive, and as negative."""
N_LISTED = 10
N_SAMPLED = 20
OFFICIAL = {"train": 14_915, "test": 5_085}
"""Clips of OpenMIC-2018 v1.0.0."""
MISSING, UNREADABLE, UNOPENED = map(Path, ("missing audio", "unreadable audio", "audio that cannot be opened"))
_THREADS = 8


@dataclass(frozen=True)
class Clip:
    """The properties of a decoded clip; `is_silent`: nothing is audible after the mix to mono."""

    sample_rate: int
    channels: int
    seconds: float
    is_silent: bool


@dataclass(frozen=True)
class Audio:
    """The audio files; of the examined ones, the decoded clips by name, and the keys of known damaged ones."""

    n_files: int
    n_bytes: int
    n_examined: int
    clips: Mapping[str, Clip]
    damaged: Sequence[str]

    @property
    def silent(self) -> tuple[str, ...]:
        """Return the names of silent clips."""
        return tuple(name for name, clip in self.clips.items() if clip.is_silent)


@dataclass(frozen=True)
class Found:
    """The contents of a directory; `dataset` is None if not even a part of it can be read.

    `vggish` is the reason why the VGGish features cannot be used, "" if they can, and None without them.
    """

    root: Path
    format: str
    dataset: ClipDataset | None
    problems: Problems
    audio: Audio | None
    vggish: str | None

    @property
    def is_usable(self) -> bool:
        """Return whether a study can use it."""
        return self.dataset is not None and not len(self.problems)


def check_directory(root: Path, *, decodes_all: bool = False, progress: Progress = quiet) -> Found:
    """Examine everything in a directory, and a few of its clips or all; no broken rule raises.

    Raises:
        FileNotFoundError: no format recognises the directory.
    """
    root, name, problems = root.resolve(), find_format(root), Problems()
    dataset = problems.attempt(root, lambda: FORMATS[name].read(root, problems), None)
    if dataset is None:
        return Found(root, name, None, problems, audio=None, vggish=None)
    audio = _check_audio(dataset, problems, decodes_all=decodes_all, progress=progress)
    return Found(root, name, dataset, problems, audio, _check_vggish(dataset))


def count_labels(dataset: ClipDataset) -> LabelCounts:
    """Count the annotations by split and label."""
    positive = dataset.observed & (dataset.targets >= POSITIVE)
    negative = dataset.observed & ~positive
    return {
        split: {
            label: (int(positive[rows, column].sum()), int(negative[rows, column].sum()))
            for column, label in enumerate(dataset.labels)
        }
        for split, rows in (("train", dataset.train), ("test", dataset.test))
    }


def _check_audio(dataset: ClipDataset, problems: Problems, *, decodes_all: bool, progress: Progress) -> Audio:
    """Look for every file, and decode all of them, or a few and those that are empty or known to be damaged."""
    names = {key: _name(path, dataset.root) for key, path in zip(dataset.keys, dataset.paths, strict=True)}
    paths, sizes = dict(zip(dataset.keys, dataset.paths, strict=True)), dict[str, int]()
    for key, path in paths.items():
        try:
            sizes[key] = path.stat().st_size
        except FileNotFoundError:
            problems.add(MISSING, names[key])
        except OSError as error:
            problems.add(UNOPENED, f"{names[key]}: {why_unopened(path, error)}")
    sample = [*sizes] if decodes_all else _sample([*sizes], sizes)
    decoded, damaged = dict[str, Clip](), list[str]()
    with ThreadPoolExecutor(_THREADS) as pool:
        clips = pool.map(_examine, [paths[key] for key in sample])
        for key, clip in zip(sample, progress(clips, total=len(sample), label="decoding"), strict=True):
            if isinstance(clip, Clip):
                decoded[names[key]] = clip
            elif isinstance(clip, OSError):
                problems.add(UNOPENED, f"{names[key]}: {why_unopened(paths[key], clip)}")
            elif key[:6] in CORRUPTED_TRACKS:
                damaged.append(key)
            else:
                problems.add(UNREADABLE, f"{names[key]}: {str(clip).removeprefix(f'{paths[key]}: ')}")
    return Audio(len(sizes), sum(sizes.values()), n_examined=len(sample), clips=decoded, damaged=damaged)


def _sample(keys: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """Return a few keys, evenly spread, and all those that are suspect."""
    step = max(len(keys) / N_SAMPLED, 1.0)
    spread = [keys[int(i * step)] for i in range(min(N_SAMPLED, len(keys)))]
    return list(dict.fromkeys(spread + [key for key in keys if not sizes[key] or key[:6] in CORRUPTED_TRACKS]))


def _examine(path: Path) -> Clip | OSError | ValueError:
    """Return the properties of a clip, or the error that keeps it from being opened or decoded."""
    try:
        samples, rate = decode(path)
    except (OSError, ValueError) as error:
        return error
    return Clip(rate, samples.shape[1], len(samples) / rate, mixes_to_silence(samples))


def _check_vggish(dataset: ClipDataset) -> str | None:
    if dataset.vggish is None:
        return None
    problems = Problems()
    problems.attempt(dataset.vggish, lambda: read_vggish(dataset), None)
    return summarise(text for texts in problems.by_place.values() for text in texts)


def _name(place: Path, root: Path) -> str:
    """Return a place as the report shows it."""
    return "data set" if place == root else str(place.relative_to(root) if place.is_relative_to(root) else place)


def lines_of(found: Found, *, lists_all: bool = False) -> Iterator[str]:
    """Yield the report: facts, table of labels, notes and warnings, problems, verdict."""
    limit = None if lists_all else N_LISTED
    yield from (f"{name:<10}{text}" for name, text in _facts(found))
    if found.dataset is not None:
        yield ""
        yield from _table(count_labels(found.dataset))
        yield ""
        yield from _notes(found, found.dataset, limit=limit)
    for place, texts in found.problems.by_place.items():
        hint = "; a study with --skip-corrupt leaves them out" if place == UNREADABLE else ""
        count = f", {len(texts):,} of them" if len(texts) > 1 else ""
        yield f"problem: {_name(place, found.root)}{count}{hint}"
        yield from (f"    {text}" for text in texts[:limit])
        if len(texts) > len(texts[:limit]):
            yield f"    and {len(texts) - N_LISTED:,} more; --all lists them"
    if found.is_usable:
        yield "usable: a study can read its tables, and each clip has a file"
    else:
        yield f"not usable: {len(found.problems):,} problem" + "s" * (len(found.problems) != 1)


def _facts(found: Found) -> Iterator[tuple[str, str]]:
    yield "directory", str(found.root)
    yield "format", found.format
    dataset, audio, marker = found.dataset, found.audio, read_marker(found.root)
    if dataset is not None:
        n_clips = {"train": len(dataset.train), "test": len(dataset.test)}
        official = ", as many as in OpenMIC-2018 v1.0.0" if n_clips == OFFICIAL else ""
        yield "clips", f"{len(dataset.keys):,}: {n_clips['train']:,} train, {n_clips['test']:,} test{official}"
        n_positive = int((dataset.observed & (dataset.targets >= POSITIVE)).sum())
        observed = f"{int(dataset.observed.sum()):,} of {dataset.observed.size:,} observed, {n_positive:,} positive"
        yield "labels", f"{len(dataset.labels)}; {observed}"
    if audio is not None:
        yield "audio", f"{audio.n_files:,} files, {decimal(audio.n_bytes)}"
        words, seconds = {1: "mono", 2: "stereo"}, [clip.seconds for clip in audio.clips.values()] or [0.0]
        counts = Counter((clip.sample_rate, clip.channels) for clip in audio.clips.values())
        kinds = ", ".join(
            f"{n:,} at {rate:,} Hz {words.get(channels, f'with {channels} channels')}"
            for (rate, channels), n in counts.most_common()
        )
        yield "decoded", f"{len(audio.clips):,}: {kinds or 'none'}; {min(seconds):.2f} to {max(seconds):.2f} s"
    if dataset is not None and dataset.artists is not None:
        unnamed = dataset.artists.count("")
        yield "artists", f"{len({*dataset.artists} - {''}):,}" + (f"; {unnamed:,} clips name none" if unnamed else "")
    yield "VGGish", {None: "none", "": "complete"}.get(found.vggish, "cannot be used")
    if marker is not None:
        yield "fetched", f"{marker.get('archive')}, MD5 {marker.get('md5')}"
    yield "digest", dataset.digest if dataset is not None and found.is_usable else "none, since it cannot be used"


def _table(counts: LabelCounts) -> Iterator[str]:
    """Yield a line a label: its positive and negative annotations by split."""
    labels = [*counts["train"]]
    width = max(map(len, [*labels, "label"])) + 2
    yield f"{'label':<{width}}" + "".join(f"{split + ' ' + side:>10}" for split in counts for side in "+-")
    for label in labels:
        yield f"{label:<{width}}" + "".join(f"{n:>10,}" for part in counts.values() for n in part[label])
    totals = (sum(pair[side] for pair in part.values()) for part in counts.values() for side in (0, 1))
    yield f"{'all':<{width}}" + "".join(f"{n:>10,}" for n in totals)


def _notes(found: Found, dataset: ClipDataset, *, limit: int | None) -> Iterator[str]:
    """Yield limits and warnings that keep no study from using the data set."""
    audio = found.audio
    if dataset.artists is None:
        yield "note: without metadata of artists, no --split artist"
    elif not all(dataset.artists):
        yield "note: clips without an artist: no --split artist"
    if found.vggish != "":
        reason = "without VGGish features" if found.vggish is None else found.vggish
        yield f"note: {reason}: no systems with VGGish input"
    if audio is None:
        return
    if audio.n_examined < audio.n_files:
        yield f"note: {audio.n_examined:,} of {audio.n_files:,} files were examined; --audio decodes all"
    if audio.damaged:
        clips = ", ".join(audio.damaged)
        yield f"note: damaged, of {len(CORRUPTED_TRACKS)} tracks known to be: {clips}; studies leave them out"
    if audio.silent:
        names = summarise(audio.silent, limit=limit or len(audio.silent))
        yield f"warning: nothing audible after the mix to mono: {names}"
