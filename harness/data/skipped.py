"""Clips without a log-mel that a study requested: an error, or a list and a warning; and silent clips: a warning."""

import csv
import hashlib
import io
import logging
from contextlib import suppress
from pathlib import Path

from harness.common.files import write_atomically
from harness.common.text import summarise
from harness.data.dataset import ClipDataset
from harness.data.openmic import CORRUPTED_TRACKS
from harness.features.extract import Extracted

logger = logging.getLogger(__name__)

_N_NAMED = 10


def is_known_to_be_corrupted(key: str) -> bool:
    """Return whether a clip's track is known to be damaged."""
    return key[:6] in CORRUPTED_TRACKS


def skipped_file(cache: Path, dataset: ClipDataset) -> Path:
    """Return where a data set's skipped clips are listed."""
    digest = hashlib.sha256(str(dataset.root.resolve()).encode()).hexdigest()
    return cache / "features" / f"skipped-{dataset.name}-{digest[:8]}.csv"


def unreadable_clips(dataset: ClipDataset, extracted: Extracted) -> dict[str, str]:
    """Return, by key, the file of each clip that cannot be read, and why."""
    return {dataset.keys[row]: f"{_name(dataset, row)}: {why}" for row, why in extracted.unreadable.items()}


def report_skipped(dataset: ClipDataset, extracted: Extracted, *, cache: Path, skip_corrupt: bool) -> None:
    """List all clips without a log-mel in a CSV file, and warn of skipped and of silent clips.

    A study goes on without clips that cannot be read if `skip_corrupt`, or if their track is known to be corrupted.

    Raises:
        OSError: files cannot be opened.
        ValueError: other clips cannot be read, or none can.
    """
    place = skipped_file(cache, dataset)
    _write(place, dataset, extracted)
    n_clips = sum(map(bool, extracted.digests)) + len(extracted.unopened)
    if extracted.unopened:
        named = summarise((f"{_name(dataset, row)}: {why}" for row, why in extracted.unopened.items()), limit=_N_NAMED)
        raise OSError(
            f"{len(extracted.unopened)} of {n_clips} audio files cannot be opened: {named}; other clips are cached; "
            f"fix the files listed in {place} and run the same command again"
        )
    unreadable = unreadable_clips(dataset, extracted)
    if unreadable and len(unreadable) == n_clips:
        raise ValueError(f"none of the {n_clips} clips can be read: {summarise(unreadable.values(), limit=_N_NAMED)}")
    known = [key for key in unreadable if is_known_to_be_corrupted(key)]
    others = [why for key, why in unreadable.items() if key not in known]
    message = f"{len(others)} of {n_clips} clips cannot be read: {summarise(others, limit=_N_NAMED)}"
    if others and not skip_corrupt:
        raise ValueError(f"{message}; repair them, or skip them with --skip-corrupt; all are listed in {place}")
    if known:
        logger.warning(
            "%d clips of tracks that are known to be corrupted are skipped: %s", len(known), summarise(known)
        )
    if others:
        logger.warning("%s; they are skipped, and listed in %s", message, place)
    if extracted.silent:
        silent = summarise((_name(dataset, row) for row in extracted.silent), limit=_N_NAMED)
        logger.warning("nothing is audible in the mono mix of %d clips: %s", len(extracted.silent), silent)


def _name(dataset: ClipDataset, row: int) -> str:
    path = dataset.paths[row]
    return str(path.relative_to(dataset.root) if path.is_relative_to(dataset.root) else path)


def _write(place: Path, dataset: ClipDataset, extracted: Extracted) -> None:
    """Write the list, or remove it if it is empty; a cache that nobody may write stays as it is."""
    unopened = {row: f"cannot be opened: {why}" for row, why in extracted.unopened.items()}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("sample_key", "file", "reason", "is_known_to_be_corrupted"))
    for row, why in sorted({**extracted.unreadable, **unopened}.items()):
        key = dataset.keys[row]
        table.writerow((key, _name(dataset, row), why, "yes" if is_known_to_be_corrupted(key) else "no"))
    with suppress(OSError):
        if extracted.unreadable or unopened:
            write_atomically(place, text.getvalue().encode())
        else:
            place.unlink(missing_ok=True)
