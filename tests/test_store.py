"""Features are computed once, by whoever comes first, and a store that is not whole is never used."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from harness.data import extraction
from harness.data import store as store_module
from harness.data.frontend import FrontEnd, decode, log_mel
from harness.data.openmic import read_dataset
from harness.data.store import open_store, prepare_features
from tests.layouts import Layout, write_tone

FRONT_END = FrontEnd(window_ms=50, hop_ms=40, n_frames=32)


@pytest.fixture
def dataset(tmp_path):
    layout = Layout()
    root = layout.write(tmp_path / "d")
    for i, key in enumerate(layout.keys):
        write_tone(root / "audio" / key[:3] / f"{key}.ogg", hertz=200 * (i + 1), channels=1 + i % 2)
    return read_dataset(root)


@pytest.fixture
def prepare(dataset, tmp_path):
    """Prepare the data set's features in a cache of the test's own."""

    def prepare(front_end=FRONT_END, *, workers=2, **options):
        return prepare_features(dataset, front_end, cache=tmp_path / "cache", workers=workers, **options)

    return prepare


@pytest.fixture
def no_work(monkeypatch):
    """Forbid computing any features from the moment the test calls this."""

    def forbid():
        def extract_features(*_arguments, **_options):
            raise AssertionError("features were computed again")

        monkeypatch.setattr(store_module, "extract_features", extract_features)

    return forbid


def names(tmp_path):
    return sorted(path.suffix or "store" for path in (tmp_path / "cache/features").iterdir())


def test_a_row_is_the_log_mel_of_its_clip_in_float16(dataset, prepare):
    store = prepare()
    assert (store.features.shape, store.features.dtype) == ((8, 32, 128), np.float16)
    assert store.keys == dataset.keys
    assert store.available.all()
    for row in range(8):
        expected = log_mel(*decode(dataset.audio_path(row)), FRONT_END).numpy().astype(np.float16)
        np.testing.assert_array_equal(store.features[row], expected)


def test_the_number_of_workers_changes_nothing(dataset, prepare, tmp_path):
    other = prepare_features(dataset, FRONT_END, cache=tmp_path / "other", workers=3)
    np.testing.assert_array_equal(prepare(workers=1).features, other.features)
    assert prepare().audio_digest == other.audio_digest


def test_a_prepared_store_is_used_again(prepare, no_work):
    first = prepare()
    no_work()
    assert prepare().path == first.path


def test_a_store_is_read_only_and_travels_as_its_path(prepare):
    store = prepare()
    with pytest.raises(ValueError, match="read-only"):
        store.features[0, 0, 0] = 1
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert (again.audio_digest, again.keys, again.front_end) == (store.audio_digest, store.keys, FRONT_END)
    np.testing.assert_array_equal(again.features, store.features)
    assert isinstance(again.features, np.memmap)


def test_progress_counts_the_clips(prepare):
    seen = []

    def progress(iterable, /, *, total, label):
        for item in iterable:
            seen.append((total, label))
            yield item

    prepare(progress=progress)
    assert seen == [(8, "features")] * 8


def test_torch_keeps_its_threads(prepare):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        prepare()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


# What shaped a store is part of its name


def test_another_front_end_has_another_store(prepare):
    one, other = prepare(), prepare(FrontEnd(window_ms=50, hop_ms=40, n_frames=33))
    assert one.path != other.path
    assert one.audio_digest == other.audio_digest


def test_each_way_of_hearing_has_a_store_of_its_own(dataset, prepare, no_work):
    """A cache that is keyed by too little hands one front end the features of another."""
    ways = [
        replace(FRONT_END, via_hz=via, is_peak_normalised=peak) for via in (0, 11025, 22050) for peak in (False, True)
    ]
    stores = [prepare(way) for way in ways]
    assert len({store.path for store in stores}) == len(ways)
    assert len({store.audio_digest for store in stores}) == 1
    no_work()
    for way, store in zip(ways, stores, strict=True):
        again = prepare(way)
        assert (again.path, again.front_end) == (store.path, way)
        expected = log_mel(*decode(dataset.audio_path(3)), way).numpy().astype(np.float16)
        np.testing.assert_array_equal(again.features[3], expected)
    assert len({store.features[3].tobytes() for store in stores}) == len(ways)


def test_another_version_of_the_front_end_has_another_store(prepare, monkeypatch):
    before = prepare().path
    monkeypatch.setattr(store_module, "FRONT_END_VERSION", 999)
    assert prepare().path != before


def test_a_changed_clip_is_heard_again(dataset, prepare):
    before = prepare()
    write_tone(dataset.audio_path(3), hertz=5000)
    after = prepare()
    assert after.audio_digest != before.audio_digest
    assert not np.array_equal(after.features[3], before.features[3])


def test_a_touched_clip_is_heard_again(dataset, prepare):
    before = prepare()
    os.utime(dataset.audio_path(3), ns=(0, 0))
    after = prepare()
    assert after.path != before.path
    assert after.audio_digest == before.audio_digest


def test_the_audio_is_known_by_its_bytes_wherever_it_lies(dataset, prepare, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copy/elsewhere")
    copy = read_dataset(tmp_path / "copy/elsewhere")
    theirs = prepare_features(copy, FRONT_END, cache=tmp_path / "other", workers=1)
    assert prepare().audio_digest == theirs.audio_digest
    files = [hashlib.sha256(dataset.audio_path(row).read_bytes()).hexdigest() for row in range(8)]
    content = [[[key, file] for key, file in zip(dataset.keys, files, strict=True)], []]
    assert theirs.audio_digest == hashlib.sha256(json.dumps(content).encode()).hexdigest()


def test_the_keys_that_cannot_be_read_are_part_of_the_audio_digest(dataset):
    one, other, none = (extraction.audio_digest(dataset, keys, workers=1) for keys in (["a", "b"], ["b", "a"], []))
    assert one == other != none


def test_two_clips_that_changed_places_are_other_audio(dataset, prepare):
    before = prepare().audio_digest
    one, other = dataset.audio_path(0), dataset.audio_path(1)
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    assert prepare().audio_digest != before


def test_a_prepared_store_is_opened_without_reading_the_audio(dataset, prepare, monkeypatch):
    before = prepare().audio_digest
    monkeypatch.setattr(extraction, "_file_hash", lambda path: pytest.fail(f"{path} was read"))
    assert prepare().audio_digest == before


# Clips that cannot be read


def spoil(dataset, rows):
    for row in rows:
        dataset.audio_path(row).write_bytes(b"no sound")


def test_unreadable_clips_are_listed_once_all_have_been_tried(dataset, prepare):
    spoil(dataset, [1, 4])
    with pytest.raises(
        ValueError, match=r"2 of 8 clips cannot be read: .*000001_7680\.ogg: not .*000004_19200.*--skip-corrupt"
    ):
        prepare()


def test_ten_unreadable_clips_are_named_and_the_rest_counted(tmp_path):
    layout = Layout(n_clips=14, n_train=10)
    dataset = read_dataset(layout.write(tmp_path / "d"))
    write_tone(dataset.audio_path(0))
    with pytest.raises(ValueError, match="13 of 14 clips cannot be read: ") as raised:
        prepare_features(dataset, FRONT_END, cache=tmp_path / "cache", workers=2)
    assert str(raised.value).count(".ogg: not readable") == 10
    assert "and 3 more" in str(raised.value)


def test_unreadable_clips_are_left_out_on_purpose_with_a_warning(dataset, prepare, caplog):
    spoil(dataset, [1, 4])
    store = prepare(skip_corrupt=True)
    assert store.available.tolist() == [row not in (1, 4) for row in range(8)]
    assert (np.asarray(store.features[[1, 4]]) == 0).all()
    assert (np.asarray(store.features[[0, 2, 3, 5, 6, 7]]) != 0).any(axis=(1, 2)).all()
    assert "2 of 8 clips cannot be read" in caplog.text
    assert pickle.loads(pickle.dumps(store)).available.tolist() == store.available.tolist()


def test_leaving_clips_out_does_not_hide_them_from_who_does_not(dataset, prepare, no_work):
    spoil(dataset, [1])
    prepare(skip_corrupt=True)
    no_work()
    with pytest.raises(ValueError, match="1 of 8 clips cannot be read"):
        prepare()


def test_which_clips_are_left_out_is_part_of_the_digest(dataset, prepare):
    digests = set()
    for rows in ([], [1], [1, 4]):
        spoil(dataset, rows)
        digests.add(prepare(skip_corrupt=True).audio_digest)
    assert len(digests) == 3


def test_a_data_set_without_any_readable_clip_is_refused(dataset, prepare):
    spoil(dataset, range(8))
    with pytest.raises(ValueError, match="8 of 8 clips cannot be read"):
        prepare(skip_corrupt=True)


def test_energies_beyond_float16_are_refused(dataset, prepare):
    loud = np.full((16000, 1), 1e30, np.float32)
    loud[::2] *= -1
    soundfile.write(dataset.audio_path(2), loud, 16000, format="WAV", subtype="FLOAT")
    with pytest.raises(ValueError, match=r"000002_11520\.ogg: its log-mel overflows float16"):
        prepare()


def test_no_worker_is_refused(prepare):
    with pytest.raises(ValueError, match="workers=0: at least one"):
        prepare(workers=0)


# A store that is not whole


@pytest.mark.parametrize("change", [{"keys": ["a"] * 8}, {"inputs_digest": "0"}, {"front_end": {"n_frames": 32}}])
def test_a_store_whose_index_describes_another_is_rebuilt(prepare, caplog, change):
    store = prepare()
    before = (store.path / "index.json").read_text()
    (store.path / "index.json").write_text(json.dumps(json.loads(before) | change))
    prepare()
    assert (store.path / "index.json").read_text() == before
    assert "is rebuilt, since its index describes another one" in caplog.text


def test_a_store_that_lost_data_is_refused_and_rebuilt(prepare, caplog):
    store = prepare()
    features = store.path / "features.npy"
    whole = features.read_bytes()
    features.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="damaged"):
        open_store(store.path)
    prepare()
    assert features.read_bytes() == whole
    assert "is rebuilt, since it is not whole" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 0}', '{"format": 2}', '{"format": 2, "front_end": {"x": 1}}', "5"]
)
def test_a_broken_index_is_refused_and_rebuilt(prepare, text):
    store = prepare()
    (store.path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json: "):
        open_store(store.path)
    assert prepare().audio_digest == store.audio_digest


def test_a_store_of_an_earlier_format_is_rebuilt(prepare, caplog):
    store = prepare()
    index = json.loads((store.path / "index.json").read_text())
    del index["audio_digest"]
    (store.path / "index.json").write_text(json.dumps(index | {"format": 1}))
    assert prepare().audio_digest == store.audio_digest
    assert "has format 1 and lacks ['audio_digest']; this is format 2" in caplog.text


def test_features_of_another_shape_than_the_index_says_are_refused(prepare):
    store = prepare()
    np.save(store.path / "features.npy", np.zeros((8, 32, 64), np.float16))
    with pytest.raises(ValueError, match=r"holds float16 \(8, 32, 64\); its index says float16 \(8, 32, 128\)"):
        open_store(store.path)


def test_a_full_disk_is_an_error_that_leaves_nothing_behind(prepare, monkeypatch, tmp_path):
    def pwrite(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space left"):
        prepare()
    assert names(tmp_path) == [".lock"]


def test_an_interrupted_preparation_leaves_nothing_behind(prepare, tmp_path):
    def progress(iterable, /, **_options):
        yield next(iterable)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(progress=progress)
    assert names(tmp_path) == [".lock"]


def test_a_store_that_another_host_finished_first_is_taken(prepare, dataset, tmp_path):
    """Hosts that share a disk without locks may both compute; the second to finish finds the name taken."""
    first = prepare_features(dataset, FRONT_END, cache=tmp_path / "other", workers=1)

    def progress(iterable, /, **_options):
        yield from iterable
        shutil.copytree(first.path, tmp_path / "cache/features" / first.path.name)

    assert prepare(progress=progress).audio_digest == first.audio_digest
    assert names(tmp_path) == [".lock", "store"]


PREPARE = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell in the background left
from pathlib import Path
from harness.data.frontend import FrontEnd
from harness.data.openmic import read_dataset
from harness.data.store import prepare_features

def progress(iterable, /, *, total, label):
    print("computing", flush=True)
    for item in iterable:
        time.sleep({pause})
        yield item

store = prepare_features(
    read_dataset(Path({root!r})), FrontEnd(window_ms=50, hop_ms=40, n_frames=32),
    cache=Path({cache!r}), workers=1, progress=progress,
)
print(store.audio_digest, float(store.features.astype("f4").sum()))
"""


def start_preparing(dataset, tmp_path, pause):
    code = PREPARE.format(root=str(dataset.root), cache=str(tmp_path / "cache"), pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.process
def test_a_killed_preparation_is_not_trusted(dataset, prepare, tmp_path):
    process = start_preparing(dataset, tmp_path, pause=60)
    assert process.stdout.readline() == "computing\n"
    process.kill()
    process.communicate()
    assert names(tmp_path) == [".lock", ".partial"]
    started = time.monotonic()
    store = prepare()
    assert time.monotonic() - started < 30  # the dead process holds no lock
    assert (np.asarray(store.features) != 0).any(axis=(1, 2)).all()
    assert names(tmp_path) == [".lock", "store"]


@pytest.mark.process
def test_ctrl_c_ends_a_preparation_at_once(dataset, tmp_path):
    process = start_preparing(dataset, tmp_path, pause=60)
    assert process.stdout.readline() == "computing\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    process.communicate()
    assert names(tmp_path) == [".lock"]


@pytest.mark.process
def test_processes_that_prepare_the_same_store_do_the_work_once(dataset, tmp_path):
    processes = [start_preparing(dataset, tmp_path, pause=0.2) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(lines[0] == "computing" for lines in outputs) == 1
    assert len({lines[-1] for lines in outputs}) == 1
    assert names(tmp_path) == [".lock", "store"]
