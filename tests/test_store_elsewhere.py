"""A data set's directory that was moved or copied: clips that were heard there before are not heard again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from harness.data.openmic import read_dataset
from harness.data.store import prepare_features
from tests.support.layouts import write_tone
from tests.support.mounts import small_disk
from tests.support.stores import FRONT_END, counting, labels_of, no_work, preparing, tones


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(tones(tmp_path / "d"))


@pytest.fixture
def first(dataset, tmp_path):
    """Return the store of the data set, made before anything moves."""
    return preparing(dataset, tmp_path / "cache")()


@pytest.fixture
def moved(first, dataset, tmp_path):
    """Prepare the data set from where it is by now, in the same cache."""
    dataset.root.rename(tmp_path / "moved")
    return preparing(read_dataset(tmp_path / "moved"), tmp_path / "cache")


def test_a_directory_that_was_moved_costs_a_reading_of_its_audio_and_no_computing(first, moved, caplog):
    seen = []
    store = moved(compute=no_work, progress=labels_of(seen))
    assert seen == [("checking audio", 8)]
    assert store.path != first.path
    for file in ("features.npy", "rows.bin"):
        assert (store.path / file).read_bytes() == (first.path / file).read_bytes()
    assert f"which is gone); to remove them: rm -r {first.path}" in caplog.text
    moved(compute=no_work, progress=labels_of(seen))
    assert len(seen) == 1


def test_of_a_copy_only_the_clips_that_are_others_are_heard(first, dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copy")
    copy = read_dataset(tmp_path / "copy")
    write_tone(copy.audio_path(3), hertz=5000)
    copy.audio_path(6).write_bytes(b"no sound")
    heard = []
    store = preparing(copy, tmp_path / "cache")(compute=counting(heard), skip_corrupt=True)
    assert sorted(heard) == [copy.audio_path(3).name, copy.audio_path(6).name]
    assert store.available.tolist() == [row != 6 for row in range(8)]
    is_other = (store.features[:] != first.features[:]).any(axis=(1, 2))
    assert np.flatnonzero(is_other).tolist() == [3, 6]


def test_a_clip_that_could_not_be_read_is_not_tried_again_either(dataset, tmp_path):
    dataset.audio_path(6).write_bytes(b"no sound")
    reasons = preparing(dataset, tmp_path / "cache")(skip_corrupt=True).unreadable()
    dataset.root.rename(tmp_path / "moved")
    prepare = preparing(read_dataset(tmp_path / "moved"), tmp_path / "cache")
    assert prepare(compute=no_work, skip_corrupt=True).unreadable() == reasons
    assert list(reasons) == [dataset.keys[6]]


def test_only_the_rows_that_are_asked_for_are_taken(moved):
    seen = []
    store = moved(rows=np.array([2, 5]), compute=no_work, progress=labels_of(seen))
    assert np.flatnonzero(store.available).tolist() == [2, 5]
    assert seen == [("checking audio", 2)]


def test_a_row_that_is_not_what_its_record_says_is_not_taken(first, moved, dataset):
    with (first.path / "features.npy").open("r+b") as file:
        file.seek(128 + 2 * 32 * 128 * 2)
        file.write(bytes(4096))
    heard = []
    store = moved(compute=counting(heard))
    assert heard == [dataset.audio_path(2).name]
    assert (store.features[2] != 0).any()


@pytest.mark.parametrize("damage", ["index.json", "rows.bin", "features.npy"])
def test_a_store_that_is_not_whole_gives_nothing_and_stops_nothing(first, moved, damage):
    (first.path / damage).write_bytes(b"{}")
    heard = []
    assert moved(compute=counting(heard)).available.all()
    assert len(heard) == 8


def test_what_was_heard_in_another_way_is_not_taken(moved, tmp_path):
    other = replace(FRONT_END, is_peak_normalised=True)
    heard = []
    dataset = read_dataset(tmp_path / "moved")
    prepare_features(dataset, other, cache=tmp_path / "cache", compute=counting(heard))
    assert len(heard) == 8


def test_of_other_audio_under_the_same_keys_a_few_clips_are_read_and_no_more(tmp_path):
    one, other = (read_dataset(tones(tmp_path / name, n_clips=40, n_train=30)) for name in ("one", "other"))
    for row in range(40):
        write_tone(other.audio_path(row), hertz=5000 + row)
    preparing(one, tmp_path / "cache")()
    heard, seen = [], []
    preparing(other, tmp_path / "cache")(compute=counting(heard), progress=labels_of(seen))
    assert len(heard) == 40
    assert seen == [("features", 40)]


def test_a_disk_without_room_for_what_would_be_taken_is_refused(first, moved, tmp_path):
    with small_disk(tmp_path / "disk", n_bytes=150 << 10) as disk:
        shutil.copytree(tmp_path / "cache", disk, dirs_exist_ok=True)
        with pytest.raises(OSError, match=r"features of 8 clips need 65\.5 kB and \d+\.\d kB are free there"):
            moved(cache=disk)
