"""Clips without features: listed with their reasons, and an error or a warning."""

import csv
import logging

import numpy as np
import pytest
import soundfile

from harness.data.openmic import CORRUPTED_TRACKS, read_dataset
from harness.data.skipped import report_skipped, skipped_file
from harness.features.extract import extract
from tests.support.clips import FRONT_END
from tests.support.layouts import Layout, write_tone

CORRUPTED = f"{min(CORRUPTED_TRACKS)}_0"


@pytest.fixture
def dataset(tmp_path):
    """Return a data set of six clips, the last one of a track that is known to be corrupted."""
    layout = Layout(n_clips=6, n_train=4)
    layout.keys[5] = layout.test[1] = CORRUPTED
    layout.artists[CORRUPTED] = "artist"
    layout.write(tmp_path / "d")
    for row, key in enumerate(layout.keys):
        write_tone(tmp_path / f"d/audio/{key[:3]}/{key}.ogg", hertz=300 * (row + 1))
    return read_dataset(tmp_path / "d")


@pytest.fixture
def report(dataset, tmp_path):
    """Return what extracts some rows and reports the clips without features."""

    def report(*, rows=None, skip_corrupt=False):
        paths = [dataset.paths[row] if rows is None or row in rows else None for row in range(6)]
        extracted = extract(paths, FRONT_END, cache=tmp_path / "cache")
        report_skipped(dataset, extracted, cache=tmp_path / "cache", skip_corrupt=skip_corrupt)
        return np.flatnonzero(extracted.available).tolist()

    return report


def spoil(dataset, *rows):
    for row in rows:
        dataset.paths[row].write_bytes(b"not audio %d" % row)


def listed(dataset, tmp_path):
    place = skipped_file(tmp_path / "cache", dataset)
    if not place.exists():
        return {}
    with place.open(newline="") as file:
        return {row["file"]: (row["reason"], row["is_known_to_be_corrupted"]) for row in csv.DictReader(file)}


def test_unreadable_clips_are_an_error_that_names_and_lists_all_and_a_warning_on_demand(
    dataset, report, tmp_path, caplog
):
    spoil(dataset, 1, 3)
    names = [f"audio/{dataset.keys[row][:3]}/{dataset.keys[row]}.ogg" for row in (1, 3)]
    with pytest.raises(ValueError, match="--skip-corrupt") as raised:
        report()
    assert all(name in str(raised.value) for name in (*names, "2 of 6", str(skipped_file(tmp_path / "cache", dataset))))
    assert listed(dataset, tmp_path) == dict.fromkeys(names, ("not readable as sound (Format not recognised)", "no"))
    with caplog.at_level(logging.WARNING):
        assert report(skip_corrupt=True) == [0, 2, 4, 5]
    assert all(name in caplog.text for name in names)


def test_tracks_known_to_be_corrupted_are_a_warning_by_themselves(dataset, report, tmp_path, caplog):
    spoil(dataset, 5)
    with caplog.at_level(logging.WARNING):
        assert report() == [0, 1, 2, 3, 4]
    assert CORRUPTED in caplog.text
    assert listed(dataset, tmp_path)[f"audio/{CORRUPTED[:3]}/{CORRUPTED}.ogg"][1] == "yes"


def test_files_that_cannot_be_opened_are_an_error_even_on_demand(dataset, report, tmp_path):
    dataset.paths[2].unlink()
    name = f"audio/000/{dataset.keys[2]}.ogg"
    with pytest.raises(OSError, match=f"1 of 6 audio files cannot be opened: {name}: No such file"):
        report(skip_corrupt=True)
    assert list(listed(dataset, tmp_path)) == [name]


def test_a_data_set_without_any_readable_clip_is_refused(dataset, report):
    spoil(dataset, *range(6))
    with pytest.raises(ValueError, match="none of the 6 clips"):
        report(skip_corrupt=True)


def test_ten_clips_are_named_and_the_rest_counted(tmp_path):
    dataset = read_dataset(Layout(n_clips=14, n_train=9).write(tmp_path / "d"))
    write_tone(dataset.paths[0])
    extracted = extract(list(dataset.paths[:14]), FRONT_END, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="13 of 14 clips") as raised:
        report_skipped(dataset, extracted, cache=tmp_path / "cache", skip_corrupt=False)
    assert str(raised.value).count(".ogg") == 10
    assert "and 3 more" in str(raised.value)


def test_a_clip_concerns_only_those_who_request_it_and_leaves_the_list_when_repaired(dataset, report, tmp_path):
    spoil(dataset, 1)
    assert report(rows={0, 2}) == [0, 2]
    with pytest.raises(ValueError, match="1 of 2 clips"):
        report(rows={0, 1})
    write_tone(dataset.paths[1])
    assert report() == [0, 1, 2, 3, 4, 5]
    assert listed(dataset, tmp_path) == {}


def test_clips_with_a_silent_mono_mix_are_named_each_time(dataset, report, caplog):
    for row in (1, 2):
        soundfile.write(dataset.paths[row], np.zeros(22_050), 44_100, format="WAV", subtype="PCM_16")
    names = ", ".join(f"audio/000/{dataset.keys[row]}.ogg" for row in (1, 2))
    for _ in range(2):
        caplog.clear()
        assert report() == list(range(6))
        (record,) = caplog.records
        assert record.message == f"nothing is audible in the mono mix of 2 clips: {names}"
