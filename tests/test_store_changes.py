"""Audio that changes after it was heard: that clip is heard again, and no study goes on with other data than it had."""

import json
import os
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import asdict

import numpy as np
import pytest

from harness.config.study import DataSpec
from harness.data import old_stores, wanted
from harness.data.openmic import read_dataset
from harness.data.store import open_store, prepare_features
from harness.data.store_index import STORE_FORMAT
from harness.features.audio import FRONT_END_VERSION
from harness.study import worker as trial
from harness.study.sources import open_dataset, open_study_data
from tests.support.layouts import write_tone
from tests.support.mounts import small_disk
from tests.support.stores import FRONT_END, counting, labels_of, no_work, preparing, tones, touch


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(tones(tmp_path / "d"))


@pytest.fixture
def prepare(dataset, tmp_path):
    """Prepare the data set's features in a cache of the test's own."""
    return preparing(dataset, tmp_path / "cache")


def test_a_changed_clip_alone_is_heard_again_and_in_the_same_store(dataset, prepare, caplog):
    before = prepare()
    write_tone(dataset.audio_path(3), hertz=5000)
    heard, seen = [], []
    after = prepare(compute=counting(heard), progress=labels_of(seen))
    assert heard == [dataset.audio_path(3).name]
    assert seen == [("checking audio", 1), ("copying features", 8), ("features", 1)]
    assert "the audio of 1 clips is not what it was; they are heard again" in caplog.text
    assert after.path == before.path
    assert after.audio_digest() != before.audio_digest()
    is_other = (after.features[:] != before.features[:]).any(axis=(1, 2))
    assert np.flatnonzero(is_other).tolist() == [3]
    prepare(compute=no_work)


def test_a_touched_clip_is_read_but_not_heard_again_and_only_once(dataset, prepare):
    before, seen = prepare(), []
    touch(dataset, 3, 5)
    after = prepare(compute=no_work, progress=labels_of(seen))
    assert seen == [("checking audio", 2)]
    assert (after.path, after.audio_digest()) == (before.path, before.audio_digest())
    prepare(compute=no_work, progress=labels_of(seen))
    assert len(seen) == 1


def test_a_clip_that_was_replaced_by_one_of_its_size_and_time_is_heard_again(dataset, prepare):
    """As by unpacking another archive, if all files of both are given one time to make them reproducible."""
    prepare()
    status = dataset.audio_path(3).stat()
    dataset.audio_path(3).write_bytes(bytes(status.st_size))
    os.utime(dataset.audio_path(3), ns=(0, status.st_mtime_ns))
    heard = []
    prepare(compute=counting(heard), skip_corrupt=True)
    assert heard == [dataset.audio_path(3).name]


def test_a_clip_with_another_mode_or_one_more_name_is_read_once_and_not_heard_again(dataset, prepare):
    prepare()
    dataset.audio_path(3).chmod(0o600)
    (dataset.root / "link").hardlink_to(dataset.audio_path(5))
    seen = []
    for _ in range(2):
        prepare(compute=no_work, progress=labels_of(seen))
    assert seen == [("checking audio", 2)]


def test_copies_of_the_audio_on_machines_that_share_the_store_are_read_once_each_and_not_in_turns(
    dataset, prepare, monkeypatch
):
    """Their times of modification are those of the archive; their times of change are when each was unpacked."""
    prepare()
    seen, stamp_here = [], wanted._stamp
    for later in (10, 0, 10, 5):

        def stamp_there(path, later=later):
            size, modified, changed = stamp_here(path)
            return size, modified, changed + later

        monkeypatch.setattr(wanted, "_stamp", stamp_there)
        prepare(compute=no_work, progress=labels_of(seen))
    assert seen == [("checking audio", 8)]


def test_what_nobody_asks_for_may_change(dataset, prepare):
    prepare()
    touch(dataset, 3)
    write_tone(dataset.audio_path(4), hertz=5000)
    prepare(rows=np.array([0, 5]), compute=no_work)
    heard = []
    prepare(rows=np.array([0, 4]), compute=counting(heard))
    assert heard == [dataset.audio_path(4).name]


def test_a_clip_that_changes_while_others_are_heard_is_heard_again_the_next_time(dataset, prepare):
    def changing(paths, front_end):
        for position, found in counting([], workers=1)(paths, front_end):
            if position == 3:
                write_tone(dataset.audio_path(3), hertz=5000)
            yield position, found

    before, heard = prepare(compute=changing), []
    assert prepare(compute=counting(heard)).audio_digest() != before.audio_digest()
    assert heard == [dataset.audio_path(3).name]


def test_an_unreadable_clip_is_tried_again_once_its_file_has_changed(dataset, prepare):
    good = dataset.audio_path(1).read_bytes()
    dataset.audio_path(1).write_bytes(b"no sound")
    prepare(skip_corrupt=True)
    prepare(skip_corrupt=True, compute=no_work)
    dataset.audio_path(1).write_bytes(good)
    heard, seen = [], []
    store = prepare(compute=counting(heard), progress=labels_of(seen))
    assert (heard, store.unreadable()) == ([dataset.audio_path(1).name], {})
    assert seen == [("checking audio", 1), ("features", 1)]  # of what nobody could read, no copy is kept


# A store that nobody here can write


@contextmanager
def finished_and_read_only(place, prepare):
    """Give a cache with a whole store in it that nobody can write, root included."""
    with small_disk(place, n_bytes=1 << 20) as disk:
        prepare(cache=disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield disk


def test_a_touched_clip_of_a_store_that_nobody_can_write_is_read_each_time_and_the_store_used(
    dataset, prepare, tmp_path
):
    with finished_and_read_only(tmp_path / "disk", prepare) as disk:
        touch(dataset, 3, 5)
        for _ in range(2):
            seen = []
            assert prepare(cache=disk, compute=no_work, progress=labels_of(seen)).available.all()
            assert seen == [("checking audio", 2)]


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_a_changed_clip_of_a_store_that_nobody_can_write_is_an_error(dataset, prepare, tmp_path, caplog, change):
    with finished_and_read_only(tmp_path / "disk", prepare) as disk:
        dataset.audio_path(3).unlink()
        if change == "other bytes":
            write_tone(dataset.audio_path(3), hertz=5000)
        with pytest.raises(OSError, match=r"features cannot be written there \(Read-only file system\)"):
            prepare(cache=disk, compute=no_work)
        prepare(cache=disk, rows=np.array([0, 4]), compute=no_work)
    why = "000/000003_15360.ogg is not what it was" if change == "other bytes" else "000/000003_15360.ogg: No such file"
    assert why in caplog.text


@pytest.mark.parametrize("is_true", [True, False])
def test_what_a_killed_process_left_on_a_disk_that_nobody_can_write_is_checked_and_used(prepare, tmp_path, is_true):
    with small_disk(tmp_path / "disk", n_bytes=1 << 20) as disk:
        path = prepare(cache=disk).path
        (path / "filling").touch()
        if not is_true:
            np.save(path / "features.npy", np.ones((8, 32, 128), np.float16))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        seen = []
        with nullcontext() if is_true else pytest.raises(OSError, match="Read-only file system"):
            prepare(cache=disk, compute=no_work, progress=labels_of(seen))
        assert seen == [("checking features", 8)]


# Who reads while it changes


def test_who_reads_a_clip_that_is_heard_again_goes_on_with_the_data_that_it_began_with(dataset, prepare):
    store = prepare()
    before, digest = store.features[:], store.audio_digest()
    good = dataset.audio_path(3).read_bytes()
    for content in (None, b"no sound", good):
        if content is None:
            write_tone(dataset.audio_path(3), hertz=5000)
        else:
            dataset.audio_path(3).write_bytes(content)
        prepare(skip_corrupt=True)
        np.testing.assert_array_equal(store.features[:], before)
        assert store.audio_digest() == digest
    assert prepare().audio_digest() == digest


def test_a_copy_that_is_interrupted_leaves_the_store_as_it_was(dataset, prepare):
    store = prepare()
    before = {file.name: file.read_bytes() for file in store.path.iterdir()}
    write_tone(dataset.audio_path(3), hertz=5000)

    def interrupted(iterable, /, *, total, label):
        for item in iterable:
            yield item
            if label == "copying features":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(progress=interrupted)
    assert {file.name: file.read_bytes() for file in store.path.iterdir()} == before
    heard = []
    prepare(compute=counting(heard))
    assert heard == [dataset.audio_path(3).name]


def test_a_copy_that_a_killed_process_left_is_removed(dataset, prepare):
    store = prepare()
    (store.path / "features.npy.part").write_bytes(b"half a copy")
    touch(dataset, 3)
    prepare(compute=no_work)
    assert sorted(file.name for file in store.path.iterdir()) == ["features.npy", "index.json", "rows.bin"]


def test_a_disk_without_room_for_the_copy_is_refused_and_the_store_stays(dataset, prepare, tmp_path):
    with small_disk(tmp_path / "disk", n_bytes=100 << 10) as disk:
        store = prepare(cache=disk)
        write_tone(dataset.audio_path(3), hertz=5000)
        with pytest.raises(
            OSError,
            match=r"features of 8 clips, copied since some changed, need 65\.5 kB and \d+\.\d kB are free there",
        ):
            prepare(cache=disk)
        assert open_store(store.path).available.all()


# How a file system may answer


def test_a_file_that_cannot_be_looked_at_is_not_believed_to_be_the_same(dataset, prepare):
    prepare()
    dataset.audio_path(3).rename(dataset.root / "away")
    with pytest.raises(OSError, match=r"1 of 8 audio files cannot be opened: 000/000003_15360\.ogg: No such file"):
        prepare()
    (dataset.root / "away").rename(dataset.audio_path(3))
    prepare(compute=no_work)


# Who runs a study while it changes


def test_no_trial_goes_on_with_other_audio_than_its_study_began_with(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    root = tones(tmp_path / "d", n_clips=24, n_train=16)
    spec = DataSpec(source=str(root), validation_fraction=0.4)
    dataset = open_dataset(spec)
    begun = open_study_data(spec, dataset, front_end=FRONT_END)
    before = begun.train.features[begun.train.rows]
    as_json = json.dumps(asdict(spec))
    trial._data.cache_clear()
    try:
        trial._data(as_json, begun.digest, FRONT_END)
        clip = dataset.audio_path(int(begun.train.rows[0]))
        good = clip.read_bytes()
        write_tone(clip, hertz=5000)
        np.testing.assert_array_equal(
            trial._data(as_json, begun.digest, FRONT_END).train.features[begun.train.rows], before
        )
        trial._data.cache_clear()  # as a process that is new to the study
        with pytest.raises(ValueError, match=rf"this node has \w{{12}}, the study began with {begun.digest[:12]}"):
            trial._data(as_json, begun.digest, FRONT_END)
        np.testing.assert_array_equal(begun.train.features[begun.train.rows], before)
        clip.write_bytes(good)
        again = trial._data(as_json, begun.digest, FRONT_END)
        np.testing.assert_array_equal(again.train.features[again.train.rows], before)
    finally:
        trial._data.cache_clear()


# Stores that nobody reads any more


@pytest.fixture
def old(prepare, tmp_path):
    """Return the index of a store in the cache, to be spoilt, and what is said when the next store is made."""
    path = prepare().path

    def said(caplog, **change):
        index = json.loads((path / "index.json").read_text())
        (path / "index.json").write_text(json.dumps(index | change))
        other = read_dataset(tones(tmp_path / "other", n_clips=9))
        prepare_features(other, FRONT_END, cache=tmp_path / "cache")
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        prepare_features(other, FRONT_END, cache=tmp_path / "cache")
        assert caplog.text == ""  # it is said once
        return lines

    return path, said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": STORE_FORMAT - 1}, "of an earlier version"),
        ({"front_end_version": FRONT_END_VERSION - 1}, "of an earlier version"),
        ({"root": "/no/such/place"}, "of /no/such/place, which is gone"),
    ],
)
def test_a_store_of_no_use_is_named_with_its_size_and_what_removes_it(old, caplog, change, why):
    path, said = old
    (line,) = said(caplog, **change)
    assert f"{path.name} (" in line
    assert f" kB, {why}); to remove them: rm -r {path}" in line
    assert path.is_dir()


@pytest.mark.parametrize(
    "change",
    [{}, {"format": STORE_FORMAT + 1}, {"front_end_version": FRONT_END_VERSION + 1}, {"format": None}, {"root": 5}],
)
def test_a_store_in_use_of_a_later_version_or_damaged_is_not_called_old(old, caplog, change):
    _, said = old
    assert said(caplog, **change) == []


def test_an_old_store_that_someone_removes_at_this_moment_stops_nothing(old, caplog, monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(old_stores, "bytes_on_disk", gone)
    _, said = old
    assert said(caplog, format=STORE_FORMAT - 1) == []
