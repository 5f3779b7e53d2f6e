"""The lines that tell what was found in a data set's directory."""

from collections.abc import Iterator
from os.path import lexists

from rich.filesize import decimal

from harness.data.check import VGGISH, Found, LabelCounts
from harness.data.check_audio import CORRUPTED_TRACKS, UNREADABLE
from harness.data.openmic import CLASS_MAP, LABELS_CSV, METADATA_CSV, NPZ

N_LISTED = 10
OFFICIAL = {"train": 14_915, "test": 5_085}
"""Clips of OpenMIC-2018 v1.0.0."""
_FILES = (CLASS_MAP, NPZ, LABELS_CSV, METADATA_CSV, "partitions/split01_train.csv", "partitions/split01_test.csv")
_WHO_READS = {
    LABELS_CSV: f"which a study does not read beside {NPZ}",
    VGGISH: "which only systems that hear VGGish read",
}


def lines_of(found: Found, *, lists_all: bool = False) -> Iterator[str]:
    """Yield the facts, the table of labels, what a study will have to do without, the problems and the verdict."""
    for name, text in _facts(found):
        yield f"{name:<10}{text}"
    if found.counts is not None:
        yield ""
        yield from _table(found.counts)
    yield ""
    yield from (f"note: {note}" for note in _notes(found))
    yield from _problems(found, lists_all=lists_all)
    if found.is_usable:
        yield "usable: a study can read its tables, and each clip has a file"
    else:
        yield f"not usable: {len(found.problems):,} problems"


def _facts(found: Found) -> Iterator[tuple[str, str]]:
    yield "directory", str(found.root.absolute())
    yield "files", ", ".join(name for name in _FILES if lexists(found.root / name)) or "none of the layout"
    if missing := [name for name in _FILES if not lexists(found.root / name)]:
        yield "not there", ", ".join(missing)
    official = ", as many as in OpenMIC-2018 v1.0.0" if found.n_clips == OFFICIAL else ""
    yield "clips", f"{found.n_keys:,}: {found.n_clips['train']:,} train, {found.n_clips['test']:,} test{official}"
    if found.counts is not None:
        positive, negative = (
            sum(pair[side] for part in found.counts.values() for pair in part.values()) for side in (0, 1)
        )
        cells = len(found.labels) * sum(found.n_clips.values())
        yield (
            "labels",
            (
                f"{len(found.labels)}; {positive + negative:,} of {cells:,} observed, {positive:,} positive; "
                f"from {found.labels_from}"
            ),
        )
    if found.audio is not None:
        yield from _audio_facts(found)
    yield from _other_facts(found)


def _other_facts(found: Found) -> Iterator[tuple[str, str]]:
    if found.artists is not None:
        artists = set(found.artists.values()) - {""}
        unnamed = sum(not artist for artist in found.artists.values())
        yield "artists", f"{len(artists):,}" + (f"; {unnamed:,} clips name none" if unnamed else "")
    is_wrong = VGGISH in found.beside.by_place
    yield "VGGish", "there" if found.has_vggish else "there, but cannot be used" if is_wrong else "not there"
    if found.fetched is not None:
        yield "fetched", f"{found.fetched.get('archive')}, md5 {found.fetched.get('md5')}"
    yield "digest", found.dataset.digest if found.dataset is not None else "none, since it cannot be read"


def _audio_facts(found: Found) -> Iterator[tuple[str, str]]:
    audio = found.audio
    assert audio is not None
    yield "audio", f"{audio.n_files:,} files, {decimal(audio.n_bytes)}"
    if audio.n_read:
        kinds = ", ".join(f"{n:,} at {rate:,} Hz {_channels(c)}" for (rate, c), n in audio.kinds.most_common())
        shortest, longest = audio.seconds
        yield "headers", f"{audio.n_read:,} read: {kinds}; {shortest:.2f} to {longest:.2f} s"


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"with {count} channels")


def _table(counts: LabelCounts) -> Iterator[str]:
    """Yield a line a label: annotated as positive and as negative, by split."""
    labels = [*counts["train"]]
    width = max(map(len, [*labels, "label"])) + 2
    yield f"{'label':<{width}}" + "".join(f"{split + ' ' + side:>10}" for split in counts for side in "+-")
    for label in labels:
        yield f"{label:<{width}}" + "".join(f"{n:>10,}" for part in counts.values() for n in part[label])
    totals = (sum(pair[side] for pair in part.values()) for part in counts.values() for side in (0, 1))
    yield f"{'all':<{width}}" + "".join(f"{n:>10,}" for n in totals)


def _notes(found: Found) -> Iterator[str]:
    """Yield what is no problem, and yet good to know."""
    for place, texts in found.beside.by_place.items():
        yield f"{place}, {_WHO_READS[place]}: {len(texts):,} wrong, as {texts[0]}"
    if found.artists is None:
        yield f"without {METADATA_CSV}, no --split artist"
    elif not all(found.artists.values()):
        yield "clips without an artist: no --split artist"
    if not found.has_vggish and VGGISH not in found.beside.by_place:
        yield f"without VGGish features ({VGGISH}), no system that hears VGGish"
    if found.audio is not None:
        yield (
            f"of {found.n_keys:,} clips {found.audio.n_read:,} were read and none was decoded; what only decoding "
            "shows, `python -m harness.data prepare` says, and with --skip-corrupt leaves out"
        )
    if found.audio is not None and found.audio.n_strangers:
        yield f"{found.audio.n_strangers:,} files below audio/ belong to no clip"
    if found.audio is not None and found.audio.damaged:
        clips = ", ".join(found.audio.damaged)
        yield f"damaged, as is known of {len(CORRUPTED_TRACKS)} tracks: {clips}; studies leave them out"


def _problems(found: Found, *, lists_all: bool) -> Iterator[str]:
    for place, texts in found.problems.by_place.items():
        listed = texts if lists_all else texts[:N_LISTED]
        hint = "; a study with --skip-corrupt leaves them out" if place == UNREADABLE else ""
        yield f"problem: {place}" + (f", {len(texts):,} of them" if len(texts) > 1 else "") + hint
        yield from (f"    {text}" for text in listed)
        if rest := len(texts) - len(listed):
            yield f"    and {rest:,} more; --all lists them"
