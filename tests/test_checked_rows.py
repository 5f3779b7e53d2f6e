"""Log-mel that was damaged after it was written is no study's: it is refused, and made anew."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from harness.config.study import DataSpec
from harness.data.batches import log_mel_features
from harness.data.checked_rows import CheckedRows
from harness.data.openmic import read_dataset
from harness.data.rows import UnreadableRowsError
from harness.data.store import open_store
from harness.data.store_files import DAMAGED, FEATURES, FILLING
from harness.study.sources import open_dataset, open_study_data
from tests.support.stores import FRONT_END, counting, no_work, preparing, tones


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(tones(tmp_path / "data", n_clips=8, n_train=6))


@pytest.fixture
def prepare(dataset, tmp_path):
    return preparing(dataset, tmp_path / "cache")


def overwrite(store, row, content):
    """Write over the end of a row, as a disk that decays might."""
    start = store.features._offset + (row + 1) * store.features._row_bytes - len(content)
    with (store.path / FEATURES).open("r+b") as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize("rows", [3, [3, 1], slice(2, 4), [], [[0, 1], [5, 3]]])
def test_they_are_read_as_the_rows_of_the_store_are(prepare, rows):
    store = prepare()
    checked = CheckedRows(store)
    assert (checked.shape, checked.dtype) == (store.features.shape, np.float16)
    for _ in range(2):
        np.testing.assert_array_equal(checked[rows], store.features[rows])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(checked))[rows], store.features[rows])


def test_a_damaged_row_is_refused_by_name_and_no_other(prepare):
    store = prepare()
    overwrite(store, 3, b"\1\2")
    checked = CheckedRows(store)
    checked[[0, 1, 2, 4, 5, 6, 7]]
    for rows in (3, [0, 3], slice(None)):
        with pytest.raises(UnreadableRowsError, match=rf"the log-mel of {store.keys[3]} is not what was written there"):
            checked[rows]


def test_rows_that_have_changed_places_are_refused(prepare):
    store = prepare()
    one, other = store.features[2].tobytes(), store.features[5].tobytes()
    overwrite(store, 2, other)
    overwrite(store, 5, one)
    for row in (2, 5):
        with pytest.raises(UnreadableRowsError, match=store.keys[row]):
            CheckedRows(store)[row]


def test_each_row_is_checked_once(prepare, monkeypatch):
    store = prepare()
    checked = CheckedRows(store)
    checked[:]
    overwrite(store, 3, b"\1\2")
    checked[3]


def test_a_row_that_is_not_there_is_no_damage(prepare):
    store = prepare(rows=np.array([0, 1]))
    assert not CheckedRows(store)[[0, 4]][1].any()


def spoil(dataset, store):
    """Damage a row, and have a study meet it."""
    overwrite(store, 3, b"\1\2")
    with pytest.raises(UnreadableRowsError, match="who opens the store next computes anew what is wrong in it"):
        log_mel_features(dataset, store, rows=np.arange(4)).values[3]
    assert (store.path / DAMAGED).exists()


def test_what_studies_hear_is_checked_and_who_opens_it_next_computes_it_anew(dataset, prepare):
    store, heard = prepare(), []
    whole = store.features[:]
    spoil(dataset, store)
    mended = log_mel_features(dataset, prepare(compute=counting(heard)))
    assert heard == [dataset.audio_path(3).name]
    np.testing.assert_array_equal(mended.values[:], whole)
    assert not {DAMAGED, FILLING} & {file.name for file in store.path.iterdir()}
    assert open_store(store.path).audio_digest() == store.audio_digest()
    assert prepare(compute=no_work).path == store.path


def test_damage_that_is_met_while_others_prepare_is_not_forgotten_when_they_end(dataset, prepare):
    store, heard = prepare(rows=np.arange(6)), []

    def spoiling(paths, front_end):
        spoil(dataset, store)
        return counting(heard)(paths, front_end)

    prepare(compute=spoiling)
    assert len(heard) == 2
    assert prepare(compute=counting(heard)).path == store.path
    assert heard[2:] == [dataset.audio_path(3).name]


def test_what_the_disk_cannot_read_is_computed_anew(dataset, prepare, monkeypatch):
    store, heard, preadv = prepare(), [], os.preadv
    bad = store.features._offset + 3 * store.features._row_bytes

    def fails_at_a_sector(file, buffers, offset):
        if offset == bad:
            raise OSError(5, "Input/output error")
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", fails_at_a_sector)
    with pytest.raises(UnreadableRowsError, match=r"cannot be read .Input/output error.; who opens the store next"):
        log_mel_features(dataset, store).values[[0, 3]]
    prepare(compute=counting(heard))
    assert heard == [dataset.audio_path(3).name]


def test_where_nobody_may_write_it_is_said_who_can_mend_it(prepare, monkeypatch):
    store = prepare()
    overwrite(store, 3, b"\1\2")

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(UnreadableRowsError, match=r"nor can that be noted there .Read-only file system.: have `python"):
        CheckedRows(store)[3]


def test_a_study_begins_though_a_row_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    spec = DataSpec(source=str(tones(tmp_path / "data", n_clips=24, n_train=16)), validation_fraction=0.4)
    dataset = open_dataset(spec)
    whole = open_study_data(spec, dataset, front_end=FRONT_END)
    store = preparing(dataset, tmp_path / "cache")()
    overwrite(store, int(whole.train.rows[0]), b"\1\2")
    found = open_study_data(spec, dataset, front_end=FRONT_END)
    assert (found.mean, found.std, found.digest) == (whole.mean, whole.std, whole.digest)
