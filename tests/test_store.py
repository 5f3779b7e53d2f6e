"""What a feature store holds, what it is known by, and which clips it leaves out."""

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from harness.data import store_index
from harness.data.batches import log_mel_features
from harness.data.extraction import Heard, in_threads
from harness.data.openmic import read_dataset
from harness.data.store import prepare_features
from harness.features.audio import decode
from harness.features.log_mel import FrontEnd, log_mel
from tests.support.layouts import Layout, write_tone
from tests.support.stores import FRONT_END, counting, no_work, tones


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(tones(tmp_path / "d"))


@pytest.fixture
def prepare(dataset, tmp_path):
    """Prepare the data set's features in a cache of the test's own."""

    def prepare(front_end=FRONT_END, *, compute=None, **options):
        compute = compute or in_threads(2)
        return prepare_features(dataset, front_end, cache=tmp_path / "cache", compute=compute, **options)

    return prepare


def test_a_row_is_the_log_mel_of_its_clip_in_float16(dataset, prepare):
    store = prepare()
    assert (store.features.shape, store.features.dtype) == ((8, 32, 128), np.float16)
    assert store.keys == dataset.keys
    assert store.available.all()
    for row in range(8):
        expected = log_mel(*decode(dataset.audio_path(row)), FRONT_END).numpy().astype(np.float16)
        np.testing.assert_array_equal(store.features[row], expected)


def test_the_number_of_workers_changes_nothing(dataset, prepare, tmp_path):
    other = prepare_features(dataset, FRONT_END, cache=tmp_path / "other", compute=in_threads(3))
    one = prepare(compute=in_threads(1))
    for file in ("features.npy", "rows.bin", "index.json"):
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes()


def test_a_prepared_store_is_used_again(prepare):
    first = prepare()
    assert prepare(compute=no_work).path == first.path


def test_a_store_travels_as_its_path(prepare):
    store = prepare()
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert (again.audio_digest(), again.keys, again.front_end) == (store.audio_digest(), store.keys, FRONT_END)
    np.testing.assert_array_equal(again.features[:], store.features[:])


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


# Some of the rows


def test_only_the_rows_that_are_asked_for_are_computed_and_each_once(dataset, prepare):
    heard = []
    some = prepare(rows=np.array([4, 1]), compute=counting(heard))
    assert heard == [dataset.audio_path(row).name for row in (1, 4)]
    assert np.flatnonzero(some.available).tolist() == [1, 4]
    assert some.missing().tolist() == [0, 2, 3, 5, 6, 7]
    more = prepare(rows=np.array([0, 1, 4]), compute=counting(heard))
    assert heard[2:] == [dataset.audio_path(0).name]
    assert np.flatnonzero(more.available).tolist() == [0, 1, 4]
    every = prepare(compute=counting(heard))
    assert sorted(heard) == [dataset.audio_path(row).name for row in range(8)]
    assert every.available.all()
    prepare(rows=np.array([2]), compute=no_work)


def test_rows_that_came_one_after_the_other_make_the_store_that_all_at_once_make(dataset, prepare, tmp_path):
    for rows in ([6, 2], [0], None):
        parts = prepare(rows=rows if rows is None else np.array(rows))
    whole = prepare_features(dataset, FRONT_END, cache=tmp_path / "other")
    for file in ("features.npy", "rows.bin", "index.json"):
        assert (parts.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_the_features_of_some_rows_are_known_by_those_rows_alone(dataset, prepare, tmp_path):
    rows = np.array([1, 4])
    digests = []
    for cache, before in (("one", None), ("two", np.arange(8))):  # the second store holds all rows
        if before is not None:
            prepare_features(dataset, FRONT_END, cache=tmp_path / cache, rows=before)
        store = prepare_features(dataset, FRONT_END, cache=tmp_path / cache, rows=rows)
        features = log_mel_features(dataset, store, rows=rows)
        assert np.flatnonzero(features.available).tolist() == [1, 4]
        digests.append(features.digest)
    assert digests[0] == digests[1]
    others = [log_mel_features(dataset, prepare(), rows=np.array(rows)).digest for rows in ([1, 4, 5], [1, 5], [1])]
    assert len({digests[0], *others, log_mel_features(dataset, prepare()).digest}) == 5
    every = log_mel_features(dataset, prepare(), rows=np.arange(8))
    assert every.digest == log_mel_features(dataset, prepare()).digest


def test_a_digest_of_rows_that_nobody_has_heard_is_refused(prepare):
    store = prepare(rows=np.array([1, 4]))
    assert store.audio_digest(np.array([4, 1]))
    with pytest.raises(ValueError, match="1 clips have not been heard: 000005_23040"):
        store.audio_digest(np.array([4, 5]))


def test_an_unreadable_clip_concerns_only_who_asks_for_it(dataset, prepare):
    spoil(dataset, [1])
    prepare(rows=np.array([0, 2]))
    with pytest.raises(ValueError, match="1 of 3 clips cannot be read"):
        prepare(rows=np.array([0, 1, 2]))
    assert prepare(rows=np.array([0, 2]), compute=no_work).unreadable(np.array([0, 2])) == {}


# What shaped a store is part of its name


def test_another_front_end_has_another_store(prepare):
    one, other = prepare(), prepare(FrontEnd(window_ms=50, hop_ms=40, n_frames=33))
    assert one.path != other.path
    assert one.audio_digest() == other.audio_digest()


def test_each_way_of_hearing_has_a_store_of_its_own(dataset, prepare):
    """A cache that is keyed by too little hands one front end the features of another."""
    ways = [
        replace(FRONT_END, via_hz=via, is_peak_normalised=peak) for via in (0, 11025, 22050) for peak in (False, True)
    ]
    stores = [prepare(way) for way in ways]
    assert len({store.path for store in stores}) == len(ways)
    assert len({store.audio_digest() for store in stores}) == 1
    for way, store in zip(ways, stores, strict=True):
        again = prepare(way, compute=no_work)
        assert (again.path, again.front_end) == (store.path, way)
        expected = log_mel(*decode(dataset.audio_path(3)), way).numpy().astype(np.float16)
        np.testing.assert_array_equal(again.features[3], expected)
    assert len({store.features[3].tobytes() for store in stores}) == len(ways)


def test_another_version_of_the_front_end_has_another_store(prepare, monkeypatch):
    before = prepare().path
    monkeypatch.setattr(store_index, "FRONT_END_VERSION", 999)
    assert prepare().path != before


def test_other_audio_elsewhere_of_the_same_keys_sizes_and_times_has_another_store(dataset, prepare, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "elsewhere")
    other = read_dataset(tmp_path / "elsewhere")
    clip, status = other.audio_path(3), dataset.audio_path(3).stat()
    clip.write_bytes(bytes(status.st_size))
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare()
    theirs = prepare_features(other, FRONT_END, cache=tmp_path / "cache", skip_corrupt=True)
    assert list(theirs.unreadable()) == [dataset.keys[3]]
    prepare(compute=no_work)  # theirs did not take the place of ours


def test_the_audio_is_known_by_its_bytes_wherever_it_lies(dataset, prepare, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copy/elsewhere")
    copy = read_dataset(tmp_path / "copy/elsewhere")
    theirs = prepare_features(copy, FRONT_END, cache=tmp_path / "other").audio_digest()
    assert prepare().audio_digest() == theirs
    files = [hashlib.sha256(dataset.audio_path(row).read_bytes()).hexdigest() for row in range(8)]
    content = [[[key, file] for key, file in zip(dataset.keys, files, strict=True)], []]
    assert theirs == hashlib.sha256(json.dumps(content).encode()).hexdigest()
    spoil(dataset, [6])
    content[0][6][1], content[1] = hashlib.sha256(b"no sound").hexdigest(), [dataset.keys[6]]
    spoilt = prepare(skip_corrupt=True).audio_digest()
    assert spoilt == hashlib.sha256(json.dumps(content).encode()).hexdigest()


def test_two_clips_that_changed_places_are_other_audio(dataset, prepare):
    before = prepare().audio_digest()
    one, other = dataset.audio_path(0), dataset.audio_path(1)
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    assert prepare().audio_digest() != before


def test_a_clip_that_is_gone_is_named_and_the_others_are_heard(dataset, prepare):
    heard = []

    def losing(paths, front_end):
        dataset.audio_path(3).unlink()
        yield from counting(heard, workers=1)(paths, front_end)

    with pytest.raises(OSError, match=r"1 of 8 audio files cannot be opened: 000/000003_15360\.ogg: No such file"):
        prepare(compute=losing)
    assert len(heard) == 8


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
        prepare_features(dataset, FRONT_END, cache=tmp_path / "cache")
    assert str(raised.value).count(".ogg: empty") == 10
    assert "and 3 more" in str(raised.value)


def test_unreadable_clips_are_left_out_on_purpose_with_a_warning(dataset, prepare, caplog):
    spoil(dataset, [1, 4])
    store = prepare(skip_corrupt=True)
    assert store.available.tolist() == [row not in (1, 4) for row in range(8)]
    assert (np.asarray(store.features[[1, 4]]) == 0).all()
    assert (np.asarray(store.features[[0, 2, 3, 5, 6, 7]]) != 0).any(axis=(1, 2)).all()
    assert "2 of 8 clips cannot be read" in caplog.text
    assert pickle.loads(pickle.dumps(store)).available.tolist() == store.available.tolist()


def test_leaving_clips_out_does_not_hide_them_from_who_does_not(dataset, prepare):
    spoil(dataset, [1])
    prepare(skip_corrupt=True)
    with pytest.raises(ValueError, match="1 of 8 clips cannot be read"):
        prepare(compute=no_work)


def test_tracks_that_are_known_to_be_corrupted_are_no_error_and_are_named(tmp_path, caplog):
    layout = Layout()
    layout.keys[2] = "095253_40960"
    layout.keys.sort()
    layout.train, layout.test = layout.keys[:6], layout.keys[6:]
    dataset = read_dataset(layout.write(tmp_path / "d"))
    for row, key in enumerate(dataset.keys):
        if key != "095253_40960":
            write_tone(dataset.audio_path(row))
    store = prepare_features(dataset, FRONT_END, cache=tmp_path / "cache")
    assert store.available.sum() == 7
    assert "1 clips of tracks that are known to be corrupted are left out: 095/095253_40960.ogg: empty" in caplog.text
    spoil(dataset, [0])
    with pytest.raises(ValueError, match=r"1 of 8 clips cannot be read: 000/000000_3840\.ogg: not readable"):
        prepare_features(dataset, FRONT_END, cache=tmp_path / "cache")


def test_what_was_no_sound_at_all_and_what_was_much_of_it_each_have_their_way(dataset, prepare):
    """An empty file, a page of a web server by the name of a clip, and eight channels at 96 kHz."""
    dataset.audio_path(1).write_bytes(b"")
    dataset.audio_path(2).write_bytes(b"<html>not found</html>" * 100)
    write_tone(dataset.audio_path(3), hertz=1000, seconds=2, sample_rate=96000, channels=8)
    store = prepare(skip_corrupt=True)
    assert list(store.unreadable()) == [dataset.keys[1], dataset.keys[2]]
    assert store.unreadable()[dataset.keys[1]] == "empty, a file of 0 bytes"
    assert store.unreadable()[dataset.keys[2]].startswith("not readable as sound (")
    expected = log_mel(*decode(dataset.audio_path(3)), FRONT_END).numpy().astype(np.float16)
    np.testing.assert_array_equal(store.features[3], expected)
    assert int(expected[5:30].mean(axis=0).argmax()) == 43  # as of any other file of a tone of 1 kHz


def test_a_reason_that_is_too_long_for_its_record_is_cut_between_letters(prepare):
    def at_length(paths, _front_end):
        yield from ((row, Heard(None, "x" + "é" * 200, bytes(32))) for row in range(len(paths) - 1))
        yield 7, Heard(np.ones((32, 128), np.float16), "", bytes(32))

    reasons = prepare(compute=at_length, skip_corrupt=True).unreadable()
    assert set(reasons.values()) == {"x" + "é" * 95}


def test_which_clips_are_left_out_is_part_of_the_digest(dataset, prepare):
    digests = set()
    for rows in ([], [1], [1, 4]):
        spoil(dataset, rows)
        digests.add(prepare(skip_corrupt=True).audio_digest())
    assert len(digests) == 3


def test_a_data_set_without_any_readable_clip_is_refused(dataset, prepare):
    spoil(dataset, range(8))
    with pytest.raises(ValueError, match="none of the 8 clips can be read"):
        prepare(skip_corrupt=True)


def test_energies_beyond_float16_are_refused(dataset, prepare):
    loud = np.full((16000, 1), 1e30, np.float32)
    loud[::2] *= -1
    soundfile.write(dataset.audio_path(2), loud, 16000, format="WAV", subtype="FLOAT")
    with pytest.raises(ValueError, match=r"000002_11520\.ogg: its log-mel overflows float16"):
        prepare()


def test_no_worker_is_refused(prepare):
    with pytest.raises(ValueError, match="workers=0: at least one"):
        prepare(compute=in_threads(0))
