"""The storage of a study: Optuna's, and the files of its trials, which are whole or absent."""

import optuna
import pytest
import torch

from harness.config.study import StudyPlace
from harness.study.files import LAST, TrialFiles
from harness.study.run import locked
from harness.study.storage import JOURNAL, open_storage

NAMES = ["My Studies", "run?2", "a#1", "My%20Studies", "R&B", "Küche", "{x} 50%"]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_its_own_trials_whatever_its_path_is_called(name, tmp_path):
    first, second = tmp_path / f"{name}1", tmp_path / f"{name}2"
    for home in (first, second):
        home.mkdir()
    trials = optuna.create_study(study_name="s", storage=open_storage(first))
    trials.add_trial(optuna.trial.create_trial(value=0.5))
    other = optuna.create_study(study_name="s", storage=open_storage(second))
    assert (len(trials.get_trials()), len(other.get_trials())) == (1, 0)
    assert len(optuna.load_study(study_name="s", storage=open_storage(first)).get_trials()) == 1
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")) == [
        f"{name}1/optuna.db",
        f"{name}2/optuna.db",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_journal_asks_for_a_journal(tmp_path):
    place = StudyPlace.of(str(tmp_path), "s")
    place.home.mkdir()
    (place.home / JOURNAL).touch()
    with locked(place, is_new=True):
        for _ in range(2):
            study = optuna.create_study(study_name="s", storage=open_storage(place.home), load_if_exists=True)
            study.add_trial(optuna.trial.create_trial(value=0.5))
    assert len(study.get_trials()) == 2
    assert not (place.home / "optuna.db").exists()


def test_a_half_written_file_of_a_trial_is_never_seen(tmp_path):
    files = TrialFiles(str(tmp_path), 3)
    assert files.load(LAST) is None
    files.save(LAST, {"epoch": 1})
    (tmp_path / "trials/003/last.pt.part").write_bytes(b"half")
    assert files.load(LAST) == {"epoch": 1}
    files.save(LAST, {"epoch": 2})
    assert files.load(LAST) == {"epoch": 2}


def test_a_uri_is_read_and_written_like_a_directory(tmp_path):
    files = TrialFiles(f"file://{tmp_path}/bucket", 1)
    files.save(LAST, {"weights": torch.ones(2)})
    assert torch.equal(files.load(LAST)["weights"], torch.ones(2))
