"""A file that is too large for a clip is refused without being read into memory, and known by its SHA-256 all the same.

Its bytes are holes, so it takes no room on the disk.
"""

import hashlib
import os
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from harness.data.extraction import Unopened, audio_digest, hear
from harness.data.openmic import read_dataset
from harness.features import audio as frontend
from harness.features.audio import decode
from tests.support.layouts import write_tone
from tests.support.stores import FRONT_END, counting, no_work, preparing, tones, touch

N_BYTES = 300_000_000
REASON = "too large for a clip, a file of 300 MB; at most 256 MB are read: cut recordings into clips"


@contextmanager
def little_memory():
    """Check that what runs inside never has 10 MB more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.fixture
def large(tmp_path):
    write_tone(tmp_path / "large.ogg")
    os.truncate(tmp_path / "large.ogg", N_BYTES)
    return tmp_path / "large.ogg"


def test_a_file_that_is_too_large_for_a_clip_is_told_so_and_not_read_into_memory(large):
    with little_memory():
        heard = hear(large, FRONT_END)
    assert heard.log_mel is None
    assert heard.reason == REASON
    assert heard.audio == hashlib.sha256(large.read_bytes()).digest()
    with little_memory(), pytest.raises(ValueError, match=rf"large\.ogg: {REASON}"):
        decode(large)


def test_the_largest_file_that_is_read_is_read(tmp_path, monkeypatch):
    write_tone(tmp_path / "tone.ogg")
    monkeypatch.setattr(frontend, "why_too_long", lambda *_: "")
    monkeypatch.setattr(frontend, "_MOST_BYTES", (tmp_path / "tone.ogg").stat().st_size)
    assert hear(tmp_path / "tone.ogg", FRONT_END).log_mel is not None
    monkeypatch.setattr(frontend, "_MOST_BYTES", (tmp_path / "tone.ogg").stat().st_size - 1)
    assert hear(tmp_path / "tone.ogg", FRONT_END).reason.startswith("too large for a clip")


def test_a_file_that_cannot_be_opened_has_no_digest(tmp_path):
    assert audio_digest(tmp_path / "none.ogg") == Unopened("No such file or directory")
    assert hear(tmp_path / "none.ogg", FRONT_END) == Unopened("No such file or directory")


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a regular file but a FIFO"),
        (os.mkdir, "not a regular file but a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file but a device"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_cannot_be_opened_and_is_not_waited_for(tmp_path, make, reason):
    make(tmp_path / "clip.ogg")
    assert audio_digest(tmp_path / "clip.ogg") == Unopened(reason)
    assert hear(tmp_path / "clip.ogg", FRONT_END) == Unopened(reason)


def test_a_store_leaves_it_out_and_once_it_is_touched_has_no_need_to_hear_it_again(tmp_path):
    dataset = read_dataset(tones(tmp_path / "d"))
    prepare, heard = preparing(dataset, tmp_path / "cache"), []
    os.truncate(dataset.audio_path(3), N_BYTES)
    store = prepare(skip_corrupt=True, compute=counting(heard))
    assert len(heard) == len(store.keys)
    assert store.unreadable() == {store.keys[3]: REASON}
    assert np.flatnonzero(~store.available).tolist() == [3]
    touch(dataset, 3)
    with little_memory():
        assert prepare(skip_corrupt=True, compute=no_work).unreadable() == {store.keys[3]: REASON}
