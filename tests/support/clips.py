"""Small sound files, and a front end that makes small arrays of them."""

import os
from pathlib import Path

import numpy as np

from harness.features.log_mel import FrontEnd
from tests.support.layouts import write_tone

FRONT_END = FrontEnd(window_ms=50, hop_ms=40, n_frames=32)


def tones(folder, n=8, **sound):
    """Write files of which each is a tone of its own; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.ogg" for i in range(n)]
    for i, path in enumerate(paths):
        write_tone(path, hertz=200 * (i + 1), channels=1 + i % 2, **sound)
    return paths


def noise(seconds, *, sample_rate=16000, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((round(seconds * sample_rate), channels))).astype(np.float32)


def touch(path):
    """Give a file another time of change."""
    os.utime(path, ns=(0, 1_000_000_000))


def forbid(monkeypatch, *forbidden):
    """Let nobody open these files; a test that root runs cannot do so by their mode."""
    opened = Path.open

    def guarded(path, *args, **kwargs):
        if path in forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)


def count_decoded(monkeypatch):
    """Return a list to which the name of each file that is decoded is added."""
    from harness.features import extract

    decoded, decode = [], extract.decode_bytes

    def counting(content, *, source):
        decoded.append(Path(source).name)
        return decode(content, source=source)

    monkeypatch.setattr(extract, "decode_bytes", counting)
    return decoded
