"""Small data sets to prepare features of, and ways to compute them that tell what they did."""

import os
from pathlib import Path

from harness.data.extraction import in_threads
from harness.data.store import prepare_features
from harness.features.log_mel import FrontEnd
from tests.support.layouts import Layout, write_tone

FRONT_END = FrontEnd(window_ms=50, hop_ms=40, n_frames=32)


def tones(root, **sizes):
    """Write a data set of which each clip is a tone of its own; return its directory."""
    layout = Layout(**sizes)
    layout.write(root)
    for i, key in enumerate(layout.keys):
        write_tone(root / "audio" / key[:3] / f"{key}.ogg", hertz=200 * (i + 1), channels=1 + i % 2)
    return root


def preparing(dataset, cache):
    """Return what prepares a data set's features, in this cache unless it is given another."""

    def prepare(*, cache=cache, **options):
        return prepare_features(dataset, FRONT_END, cache=cache, **options)

    return prepare


def no_work(paths, _front_end):
    """Stand for an extraction where nothing is to be computed."""
    raise AssertionError(f"features were computed again, of {paths}")


def counting(heard, *, workers=2):
    """Return an extraction that adds the name of each file that it hears to a list."""

    def extract(paths, front_end):
        for position, found in in_threads(workers)(paths, front_end):
            heard.append(paths[position].name)
            yield position, found

    return extract


def labels_of(seen):
    """Return a progress that adds to a list what each loop is of, and of how many."""

    def progress(iterable, /, *, total, label):
        seen.append((label, total))
        return iter(iterable)

    return progress


def touch(dataset, *rows):
    """Give clips another time of change."""
    for row in rows:
        os.utime(dataset.audio_path(row), ns=(0, 1_000_000_000 + row))


def forbid(monkeypatch, paths):
    """Let nobody read these files; a test that root runs cannot do so by their mode."""
    opened = Path.open

    def guarded(path, *args, **kwargs):
        if path in paths:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
