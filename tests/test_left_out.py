"""The list of all clips that a store has no log-mel of is there after each preparation, and true."""

import csv

import numpy as np
import pytest

from harness.data.openmic import read_dataset
from harness.data.store import prepare_features
from tests.support.layouts import Layout, write_tone
from tests.support.stores import FRONT_END, forbid, no_work

KNOWN = "095253_40960"


@pytest.fixture
def dataset(tmp_path):
    """Write fourteen empty clips, of which the last is of a track that is known to be corrupted."""
    layout = Layout(n_clips=14, n_train=10)
    layout.keys[13] = KNOWN
    layout.train, layout.test = layout.keys[:10], layout.keys[10:]
    return read_dataset(layout.write(tmp_path / "d"))


@pytest.fixture
def prepare(dataset, tmp_path):
    """Prepare the data set's features in a cache of the test's own; return the lines of the list."""

    def prepare(**options):
        prepare_features(dataset, FRONT_END, cache=tmp_path / "cache", **options)
        return listed(tmp_path)

    return prepare


def listed(tmp_path):
    (path,) = (tmp_path / "cache/features").glob("*[0-9a-f]")
    if not (path / "left_out.csv").exists():
        return {}
    with (path / "left_out.csv").open(newline="") as file:
        return {line.pop("sample_key"): line for line in csv.DictReader(file)}


def make_good(dataset, rows):
    for row in rows:
        write_tone(dataset.audio_path(row))


def test_every_clip_that_cannot_be_read_is_listed_with_file_and_reason(dataset, prepare):
    make_good(dataset, [0])
    dataset.audio_path(5).write_bytes(b'no "sound", but text')
    found = prepare(skip_corrupt=True)
    assert list(found) == [*dataset.keys[1:]]
    assert found[dataset.keys[1]] == {
        "file": "000/000001_7680.ogg",
        "reason": "empty, a file of 0 bytes",
        "is_known_to_be_corrupted": "no",
    }
    assert found[dataset.keys[5]]["reason"].startswith("not readable as sound (")
    assert [key for key, line in found.items() if line["is_known_to_be_corrupted"] == "yes"] == [KNOWN]


def test_the_list_is_there_if_the_preparation_fails_because_of_them_and_is_named(dataset, prepare, tmp_path):
    make_good(dataset, [0])
    with pytest.raises(ValueError, match=r"12 of 14 clips cannot be read.*all are listed in \S+/left_out\.csv$"):
        prepare()
    assert len(listed(tmp_path)) == 13


def test_the_list_follows_what_is_repaired_and_what_is_asked_for(dataset, prepare):
    make_good(dataset, [0])
    assert list(prepare(rows=np.array([0, 1, 2]), skip_corrupt=True)) == [*dataset.keys[1:3]]
    assert list(prepare(rows=np.array([0, 3]), skip_corrupt=True)) == [*dataset.keys[1:4]]
    make_good(dataset, [2])
    assert list(prepare(skip_corrupt=True)) == [key for row, key in enumerate(dataset.keys) if row not in (0, 2)]
    make_good(dataset, range(14))
    assert prepare() == {}
    assert prepare(compute=no_work) == {}


def test_files_that_cannot_be_opened_are_listed_until_they_can(dataset, prepare, tmp_path, monkeypatch):
    make_good(dataset, range(14))
    with monkeypatch.context() as patch:
        forbid(patch, [dataset.audio_path(3)])
        with pytest.raises(OSError, match=r"1 of 14 .*; all are listed in \S+/left_out\.csv$"):
            prepare()
    assert {key: line["reason"] for key, line in listed(tmp_path).items()} == {
        dataset.keys[3]: "cannot be opened: Permission denied"
    }
    assert prepare() == {}


def test_an_interrupted_preparation_leaves_a_true_list(dataset, prepare, tmp_path):
    def ending(iterable, /, **_options):
        for count, item in enumerate(iterable):
            if count == 5:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        prepare(progress=ending)
    assert list(listed(tmp_path)) == [*dataset.keys[:5]]
