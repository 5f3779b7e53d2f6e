"""The synthetic data set of OpenMIC-2018's size: keys, splits and answers as in the real one, on little disk."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.common.progress import quiet
from harness.config.literature import Counts
from harness.config.study import DataSpec
from harness.data.__main__ import app
from harness.data.check import check_directory, count_labels
from harness.data.npz import read_strings
from harness.data.openmic import CORRUPTED_TRACKS, read_vggish
from harness.data.splits import split_train
from harness.reproduction import run
from harness.synthetic import openmic_sized
from harness.synthetic.demo import LABELS
from harness.synthetic.openmic_sized import FULL_SIZE, draw_answers, draw_keys, write_stand_in


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_stand_in(
        tmp_path_factory.mktemp("stand-in"), n_clips=200, pool_size=5, seed=0, workers=1, progress=quiet
    )


def test_at_full_size_it_has_the_answers_of_openmic_2018_by_label_and_split():
    rng = np.random.default_rng(0)
    is_test = rng.permutation(FULL_SIZE) < 5085
    answers = draw_answers(is_test, rng)
    assert (np.count_nonzero(answers), (answers > 0).sum()) == (41_268, 17_614)
    assert [np.count_nonzero(answers[rows]) for rows in (~is_test, is_test)] == [30_746, 10_522]
    column = answers[:, LABELS.index("mallet_percussion")]
    found = [(column[rows] == answer).sum() for rows in (~is_test, is_test) for answer in (1, -1)]
    assert found == [522, 802, 211, 267]
    assert answers.any(axis=1).all()
    assert np.unique((answers != 0).sum(axis=1)).size > 3  # some clips have one answer, some many


def test_its_keys_are_those_of_tracks_in_order_with_the_corrupted_ones_among_them():
    keys = draw_keys(FULL_SIZE, np.random.default_rng(0))
    assert list(keys) == sorted(set(keys))
    assert all(key[:6].isdigit() and key[6] == "_" and int(key[7:]) % 3840 == 0 for key in keys)
    assert {key[:6] for key in keys} >= CORRUPTED_TRACKS
    assert len(keys) == FULL_SIZE


def test_it_passes_the_check_with_some_of_the_corrupted_tracks_damaged(place):
    found = check_directory(place, decodes_all=True)
    assert found.is_usable
    assert (len(found.dataset.train), len(found.dataset.test)) == (149, 51)
    assert found.vggish == ""
    assert found.audio.silent == ()
    assert len({(clip.sample_rate, clip.channels) for clip in found.audio.clips.values()}) > 2
    assert len(found.audio.damaged) == 5
    assert len({path.stat().st_ino for path in place.rglob("*.ogg")}) <= 5 + 5  # the pool, and the damaged clips
    assert {key[:6] for key in found.audio.damaged} < CORRUPTED_TRACKS


def test_no_reproduction_takes_it_for_openmic_2018_for_all_its_counts(place, tmp_path, monkeypatch):
    dataset = check_directory(place).dataset
    counts = {label: Counts(0, 0, *pair) for label, pair in count_labels(dataset)["test"].items()}
    monkeypatch.setattr(run, "LABEL_COUNTS", counts)
    wanted = SimpleNamespace(data=DataSpec(source=str(place)))
    assert not run._describe(wanted, dataset, ceiling=None).is_openmic
    assert run._describe(wanted, replace(dataset, root=tmp_path), ceiling=None).is_openmic


def test_a_clip_sounds_as_it_is_annotated(place):
    """A pool of 5 has few instruments to offer; where two clips share the file, its instruments fit both."""
    dataset = check_directory(place).dataset
    sound = [dataset.paths[row].stat().st_ino for row in range(len(dataset.keys))]
    agree = []
    for file in set(sound):
        rows = np.flatnonzero(np.array(sound) == file)
        for label in range(len(LABELS)):
            answers = dataset.targets[rows, label][dataset.observed[rows, label]] >= 0.5
            agree.append(abs(2 * answers.mean() - 1) * len(answers) if len(answers) else 0.0)
    assert sum(agree) > 0.5 * dataset.observed.sum()  # by chance, 0.3


def test_its_tables_suit_both_drawn_splits_and_its_keys_are_objects_as_in_the_official_file(place):
    dataset = check_directory(place).dataset
    for kind in ("random", "artist"):
        split = split_train(dataset, kind=kind, validation_fraction=0.3, seed=0)
        assert len(split.validation) > 25
    assert read_strings(place / "openmic-2018.npz", "sample_key") == dataset.keys
    assert read_vggish(dataset).shape == (200, 10, 128)
    artists = np.array(dataset.artists)
    assert not set(artists[dataset.train]) & set(artists[dataset.test])


def test_the_same_seed_gives_the_same_labels_and_another_seed_others(tmp_path, monkeypatch, place):
    monkeypatch.setattr(openmic_sized, "_render", lambda task: task[1].touch())
    options = {"n_clips": 200, "pool_size": 5, "workers": 1, "progress": quiet}
    digests = [
        check_directory(write_stand_in(tmp_path / name, seed=seed, **options)).dataset.digest
        for name, seed in (("same", 0), ("other", 1))
    ]
    assert digests[0] == check_directory(place).dataset.digest != digests[1]


def test_where_files_have_one_name_only_they_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("too many links")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    (tmp_path / "sound.ogg").write_bytes(b"OggS")
    openmic_sized._link(tmp_path / "000" / "000001_0.ogg", tmp_path / "sound.ogg")
    assert (tmp_path / "000" / "000001_0.ogg").read_bytes() == b"OggS"


def test_the_command_refuses_a_place_that_is_taken_and_too_few_clips(tmp_path):
    (tmp_path / "openmic-2018-stand-in").mkdir()
    for flags, message in (
        (["--to", str(tmp_path)], "openmic-2018-stand-in: is there already; remove it, or choose another directory"),
        (["--to", str(tmp_path / "new"), "--clips", "199"], "clips=199: must be at least 200"),
    ):
        done = CliRunner().invoke(app, ["generate", *flags])
        assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert not (tmp_path / "new").exists()
