"""Log-mel that was damaged after it was written is no study's: it is refused, and made anew."""

import pickle

import numpy as np
import pytest

from harness.data.checked_rows import CheckedRows
from harness.data.features import log_mel_features
from harness.data.openmic import read_dataset
from harness.data.rows import UnreadableRowsError
from harness.data.store import open_store
from harness.data.store_files import FEATURES, FILLING
from tests.stores import counting, preparing, tones


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


def test_what_studies_hear_is_checked_and_who_opens_it_next_computes_it_anew(dataset, prepare):
    store, heard = prepare(), []
    whole = store.features[:]
    overwrite(store, 3, b"\1\2")
    with pytest.raises(UnreadableRowsError):
        log_mel_features(dataset, store).values[3]
    assert (store.path / FILLING).exists()
    mended = log_mel_features(dataset, prepare(compute=counting(heard)))
    assert heard == [dataset.audio_path(3).name]
    np.testing.assert_array_equal(mended.values[:], whole)
    assert not (store.path / FILLING).exists()
    assert open_store(store.path).audio_digest() == store.audio_digest()
