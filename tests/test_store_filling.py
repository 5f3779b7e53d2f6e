"""A store is filled in place: what ends a preparation costs what was in work, and nothing half-written is trusted."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from harness.data import store_files, store_index
from harness.data.openmic import read_dataset
from harness.data.store import open_store, prepare_features
from tests.support.mounts import read_only, small_disk
from tests.support.stores import FRONT_END, counting, labels_of, no_work, preparing, tones

ROW_BYTES = 32 * 128 * 2
FILES = ("features.npy", "index.json", "rows.bin")


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(tones(tmp_path / "d"))


@pytest.fixture
def prepare(dataset, tmp_path):
    """Prepare the data set's features in a cache of the test's own."""
    return preparing(dataset, tmp_path / "cache")


@pytest.fixture
def uninterrupted(dataset, tmp_path):
    """Return what the files of a store hold that nothing disturbed."""
    path = prepare_features(dataset, FRONT_END, cache=tmp_path / "undisturbed").path
    return {file: (path / file).read_bytes() for file in FILES}


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def kinds(cache):
    """Return what lies beside the stores of a cache."""
    return sorted(path.suffix or "store" for path in (cache / "features").iterdir())


def fill_up(disk):
    with (disk / "other").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def ending_after(count, error):
    """Return a progress that lets so many clips pass and then raises."""

    def progress(iterable, /, **_options):
        yield from islice(iterable, count)
        raise error

    return progress


# What ends a preparation


def test_an_interrupted_preparation_goes_on_where_it_was(prepare, tmp_path, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        prepare(progress=ending_after(3, KeyboardInterrupt))
    assert kinds(tmp_path / "cache") == [".lock", "store"]
    (path,) = (tmp_path / "cache/features").glob("*[0-9a-f]")
    assert sorted(file.name for file in path.iterdir()) == [*FILES]  # with no mark: it ended, if early
    assert np.flatnonzero(open_store(path).available).tolist() == [0, 1, 2]
    heard = []
    assert files_of(prepare(compute=counting(heard)).path) == uninterrupted
    assert len(heard) == 5


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(prepare, tmp_path):
    with small_disk(tmp_path / "disk", n_bytes=64 << 10) as disk:
        with pytest.raises(OSError, match=r"features of 8 clips need 65\.5 kB and \d+\.\d kB are free there"):
            prepare(cache=disk, compute=no_work)
        assert prepare(cache=disk, rows=np.arange(3)).available.sum() == 3


def test_a_disk_that_fills_up_half_way_loses_nothing_that_was_stored(prepare, tmp_path, uninterrupted):
    with small_disk(tmp_path / "disk", n_bytes=128 << 10) as disk:

        def progress(iterable, /, **_options):
            yield from islice(iterable, 3)
            fill_up(disk)
            yield from iterable

        with pytest.raises(OSError, match=r"features cannot be written there \(No space left on device\); make room"):
            prepare(cache=disk, progress=progress)
        (path,) = (disk / "features").glob("*[0-9a-f]")
        n_stored = int(open_store(path).available.sum())
        assert 3 <= n_stored < 8
        assert not (path / "filling").exists()
        (disk / "other").unlink()
        heard = []
        assert files_of(prepare(cache=disk, compute=counting(heard)).path) == uninterrupted
        assert len(heard) == 8 - n_stored


def test_a_cache_that_nobody_can_write_is_an_error_that_says_so(prepare, tmp_path):
    with (
        read_only(tmp_path / "disk") as disk,
        pytest.raises(OSError, match=r"cannot be written there \(Read-only file system\).*REPROGRAMMING_CACHE"),
    ):
        prepare(cache=disk)


def test_a_finished_store_that_nobody_can_write_is_used(prepare, tmp_path):
    with small_disk(tmp_path / "disk", n_bytes=1 << 20) as disk:
        store = prepare(cache=disk, rows=np.arange(4))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert prepare(cache=disk, rows=np.arange(4), compute=no_work).path == store.path
        with pytest.raises(OSError, match=r"cannot be written there \(Read-only file system\)"):
            prepare(cache=disk, rows=np.arange(5), compute=no_work)


# What a lost power may leave


def spoil_row(path, row):
    with (path / "features.npy").open("r+b") as file:
        file.seek(128 + row * ROW_BYTES + 1000)
        file.write(bytes(4096))


@pytest.mark.parametrize("cause", ["a row that never came to the disk", "a record of another row", "half a reason"])
def test_after_an_unclean_end_each_row_is_checked_before_it_is_believed(dataset, prepare, uninterrupted, caplog, cause):
    path = prepare(rows=np.arange(6)).path
    records = np.fromfile(path / "rows.bin", store_files.RECORD)
    if cause == "a row that never came to the disk":
        spoil_row(path, 2)
    elif cause == "a record of another row":
        records[2] = records[3]
    else:
        records[2] = (store_files.UNREADABLE, records[2]["crc"], records[2]["audio"], records[2]["stamp"], b"not rea")
    records.tofile(path / "rows.bin")
    (path / "filling").touch()
    heard, seen = [], []
    assert files_of(prepare(compute=counting(heard), progress=labels_of(seen)).path) == uninterrupted
    assert sorted(heard) == [dataset.audio_path(row).name for row in (2, 6, 7)]
    assert seen == [("checking features", 6), ("features", 3)]
    assert "the last preparation did not come to its end" in caplog.text


def test_what_was_checked_and_is_whole_is_not_checked_again(prepare, caplog):
    path = prepare().path
    (path / "filling").touch()
    prepare(compute=no_work)
    assert not (path / "filling").exists()
    caplog.clear()
    prepare(compute=no_work)
    assert caplog.text == ""


def test_a_check_that_is_interrupted_is_begun_again(dataset, prepare, uninterrupted):
    path = prepare().path
    spoil_row(path, 2)
    (path / "filling").touch()

    def interrupted(iterable, /, *, total, label):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(progress=interrupted)
    heard = []
    assert files_of(prepare(compute=counting(heard)).path) == uninterrupted
    assert heard == [dataset.audio_path(2).name]


def test_after_a_clean_end_nothing_is_checked(prepare):
    """Damage that no lost power explains is the disk's: to look for it would mean to read 5 GB before each trial."""
    path = prepare().path
    spoil_row(path, 2)
    prepare(compute=no_work)


def test_rows_are_written_before_their_records_and_all_of_it_within_the_mark(prepare, monkeypatch):
    """So that a killed process leaves no record without its row, and a lost power no clean store without its rows."""
    events = []

    def noting(what, call):
        def noted(descriptor, *arguments):
            events.append((what, Path(f"/proc/self/fd/{descriptor}").readlink().name))
            return call(descriptor, *arguments)

        return noted

    monkeypatch.setattr(os, "fsync", noting("sync", os.fsync))
    monkeypatch.setattr(os, "pwrite", noting("write", os.pwrite))
    name = prepare().path.name
    first = events.index(("write", "features.npy"))
    assert events[first - 1] == ("sync", name)  # the directory, with the mark in it
    rows = [("write", "features.npy"), ("write", "rows.bin")] * 8
    assert events[first:] == [*rows, ("sync", "features.npy"), ("sync", "rows.bin"), ("sync", name)]


# A store that is not whole, or is another


@pytest.mark.parametrize("change", [{"keys": ["a"] * 8}, {"root": "/other"}, {"front_end": {"n_frames": 32}}])
def test_a_store_whose_index_describes_another_is_made_anew(prepare, caplog, uninterrupted, change):
    path = prepare().path
    index = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps(index | change))
    assert files_of(prepare().path) == uninterrupted
    assert "is made anew, since it is not whole" in caplog.text


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["shorter", "empty", "gone"])
def test_a_store_that_lost_data_is_refused_and_made_anew(prepare, tmp_path, caplog, uninterrupted, file, damage):
    path = prepare().path
    if damage == "gone":
        (path / file).unlink()
    else:
        (path / file).write_bytes(b"" if damage == "empty" else (path / file).read_bytes()[:-1])
    with pytest.raises((ValueError, FileNotFoundError), match=file):
        open_store(path)
    assert files_of(prepare().path) == uninterrupted
    assert "is made anew, since it is not whole" in caplog.text
    assert kinds(tmp_path / "cache") == [".lock", "store"]


HEADS = {
    "garbage": b"\x93NUMPY\x01\x00v\x00" + b"({[\xff" * 30,
    "zeros": bytes(128),
    "gigabytes": b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    "nested": b"\x93NUMPY\x01\x00v\x00" + b"(" * 118,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=[*HEADS])
def test_a_damaged_head_of_the_features_is_refused_and_the_store_made_anew(prepare, caplog, uninterrupted, head):
    path = prepare().path
    with (path / "features.npy").open("r+b") as file:
        file.write(head)
    with pytest.raises(ValueError, match=r"features\.npy: not an \.npy file"):
        open_store(path)
    assert files_of(prepare().path) == uninterrupted
    assert "is made anew, since it is not whole" in caplog.text


def test_a_record_that_says_nothing_possible_is_of_a_missing_row(dataset, prepare, uninterrupted):
    path = prepare().path
    records = np.fromfile(path / "rows.bin", store_files.RECORD)
    records["state"][[2, 5]] = 7, 255
    records.tofile(path / "rows.bin")
    store = open_store(path)
    assert (store.missing().tolist(), store.available.sum()) == ([2, 5], 6)
    heard = []
    assert files_of(prepare(compute=counting(heard)).path) == uninterrupted
    assert sorted(heard) == [dataset.audio_path(row).name for row in (2, 5)]


VERSIONS = {"format": store_index.STORE_FORMAT, "front_end_version": store_index.FRONT_END_VERSION}
WITHOUT_ROOT = json.dumps(VERSIONS | {"front_end": {}, "keys": []})
WITHOUT_FRONT_END = json.dumps(VERSIONS | {"front_end": 1})


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 0}', WITHOUT_ROOT, WITHOUT_FRONT_END, "5"])
def test_a_broken_index_is_refused_and_the_store_made_anew(prepare, uninterrupted, text):
    path = prepare().path
    (path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json: "):
        open_store(path)
    assert files_of(prepare().path) == uninterrupted


@pytest.mark.parametrize(("stamp", "ours"), VERSIONS.items())
def test_a_store_of_an_earlier_version_is_not_used(prepare, caplog, monkeypatch, stamp, ours):
    store = prepare()
    index = json.loads((store.path / "index.json").read_text())
    (store.path / "index.json").write_text(json.dumps(index | {stamp: 1}))
    heard = []
    assert prepare(compute=counting(heard)).audio_digest() == store.audio_digest()
    assert len(heard) == 8
    assert f"it has {stamp} 1, this is {stamp} {ours}" in caplog.text
    monkeypatch.setattr(store_index, "STORE_FORMAT" if stamp == "format" else "FRONT_END_VERSION", ours + 1)
    assert prepare().path != store.path


def test_features_of_another_shape_than_the_index_says_are_refused(prepare):
    store = prepare()
    np.save(store.path / "features.npy", np.zeros((8, 32, 64), np.float16))
    with pytest.raises(ValueError, match=r"holds float16 \(8, 32, 64\); its index says float16 \(8, 32, 128\)"):
        open_store(store.path)


def test_who_reads_a_store_that_is_made_anew_goes_on_reading_the_old_one(prepare):
    store = prepare()
    before = store.features[:]
    (store.path / "index.json").write_text("{}")
    prepare()
    assert np.array_equal(store.features[:], before)


def test_a_store_that_another_host_made_first_is_taken(prepare, dataset, tmp_path, monkeypatch, uninterrupted):
    """Hosts that share a disk without locks may both begin one; the second to finish finds the name taken."""
    write_files = store_files._write_files

    def slowly(path, index):
        write_files(path, index)
        other = path.with_name(index.name)
        other.mkdir()
        write_files(other, index)

    monkeypatch.setattr(store_files, "_write_files", slowly)
    assert files_of(prepare().path) == uninterrupted
    assert kinds(tmp_path / "cache") == [".lock", "store"]


# Real processes


PREPARE = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell in the background left
from pathlib import Path
from harness.data.extraction import in_threads
from harness.features.audio import FrontEnd
from harness.data.openmic import read_dataset
from harness.data.store import prepare_features

def progress(iterable, /, *, total, label):
    for done, item in enumerate(iterable):
        print("computing", done, flush=True)
        time.sleep({pause})
        yield item

store = prepare_features(
    read_dataset(Path({root!r})), FrontEnd(window_ms=50, hop_ms=40, n_frames=32),
    cache=Path({cache!r}), compute=in_threads(1), progress=progress,
)
print(store.audio_digest(), float(store.features[:].astype("f4").sum()))
"""


def start_preparing(dataset, tmp_path, pause):
    code = PREPARE.format(root=str(dataset.root), cache=str(tmp_path / "cache"), pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, *lines):
    for line in lines:
        assert process.stdout.readline() == f"{line}\n"


@pytest.mark.drill
def test_after_a_kill_only_what_is_missing_is_computed(dataset, prepare, tmp_path, uninterrupted):
    process = start_preparing(dataset, tmp_path, pause=0.3)
    wait_for(process, "computing 0", "computing 1", "computing 2", "computing 3")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (path,) = (tmp_path / "cache/features").glob("*[0-9a-f]")
    assert (path / "filling").exists()
    stored = np.flatnonzero(open_store(path).available)
    assert stored.tolist() == [0, 1, 2]
    started, heard = time.monotonic(), []
    store = prepare(compute=counting(heard))
    assert time.monotonic() - started < 30  # the dead process holds no lock
    assert sorted(heard) == [dataset.audio_path(row).name for row in range(3, 8)]
    assert files_of(store.path) == uninterrupted


@pytest.mark.drill
def test_ctrl_c_ends_a_preparation_at_once(dataset, tmp_path):
    process = start_preparing(dataset, tmp_path, pause=60)
    wait_for(process, "computing 0")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    process.communicate()
    (path,) = (tmp_path / "cache/features").glob("*[0-9a-f]")
    assert sorted(file.name for file in path.iterdir()) == [*FILES]


@pytest.mark.drill
def test_processes_that_prepare_the_same_store_do_the_work_once(dataset, tmp_path):
    first = start_preparing(dataset, tmp_path, pause=0.1)
    wait_for(first, "computing 0")
    first.send_signal(signal.SIGSTOP)  # for as long as the second one takes to start
    second = start_preparing(dataset, tmp_path, pause=0.1)
    assert any("another process prepares these features; waiting for it" in line for line in second.stderr)
    first.send_signal(signal.SIGCONT)
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert [output.count("computing") for output in outputs] == [7, 0]  # one was read above
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert kinds(tmp_path / "cache") == [".lock", "store"]


@pytest.mark.drill
def test_who_wants_rows_that_are_there_does_not_wait_for_who_fills_others(dataset, prepare, tmp_path, caplog):
    process = start_preparing(dataset, tmp_path, pause=0.5)
    try:
        wait_for(process, "computing 0", "computing 1", "computing 2", "computing 3")
        store = prepare(rows=np.array([0, 2]), compute=no_work)
        assert process.poll() is None
        assert (store.path / "filling").exists()
        assert store.available[[0, 2]].all()
        assert "waiting for it" not in caplog.text
    finally:
        process.kill()
        process.communicate()


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("holding", flush=True)
    time.sleep(1)
"""


@pytest.mark.drill
def test_who_wants_rows_that_are_not_what_their_records_say_waits_for_who_fills_the_store(
    dataset, prepare, uninterrupted, caplog
):
    path = prepare().path
    spoil_row(path, 2)
    (path / "filling").touch()
    command = [sys.executable, "-c", HOLD, f"{path}.lock"]
    heard = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_for(process, "holding")
        prepare(rows=np.array([0, 2]), compute=counting(heard))
        assert process.wait(timeout=30) == 0
    assert heard == [dataset.audio_path(2).name]
    assert "another process prepares these features; waiting for it" in caplog.text
    assert files_of(path) == uninterrupted
