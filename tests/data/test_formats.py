"""A data set is read in the format that recognises its directory, and a new format needs only an entry."""

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.config.study import DataSpec
from harness.data.__main__ import app
from harness.data.dataset import LabelTable, Problems, make_dataset
from harness.data.formats import FORMATS, Format, read_dataset
from harness.features.inputs import LogMel
from harness.models.backbones import backbone_digest, load_backbone
from harness.study.session import Session, TrialTask
from harness.study.sources import open_dataset, open_study_data
from tests.support.evaluations import make_spec
from tests.support.layouts import Layout, write_tone


def read_folders(root, problems: Problems):
    """Read clips in ROOT/LABEL/NAME.wav: each is a positive for its folder's label and a negative for the others."""
    labels = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    paths = [path for label in labels for path in sorted((root / label).iterdir(), reverse=True)]
    keys = tuple(f"{path.parent.name}-{path.stem}" for path in paths)
    targets = np.array([[float(path.parent.name == label) for label in labels] for path in paths])
    table = LabelTable(root / "README.folders", keys, targets, np.ones(targets.shape, np.bool_))
    problems.add(root, *(f"{path.name} is no .wav" for path in paths if path.suffix != ".wav"))
    test = {key for key in keys if key.endswith("9")}
    return make_dataset(root, labels, table, paths=paths, train=set(keys) - test, test=test, problems=problems)


@pytest.fixture
def folders(tmp_path):
    """Register another package's toy format, and return a data set in it."""
    toy = Format("README.folders", lambda root: (root / "README.folders").exists(), read_folders)
    FORMATS.add("folders", toy)
    root = tmp_path / "toy"
    for label, hertz in (("high", 2000), ("low", 200)):
        for i in range(10):
            write_tone(root / label / f"{i}.wav", hertz=hertz)
    (root / "README.folders").touch()
    yield root
    FORMATS.remove("folders")


def test_a_format_that_is_added_to_the_registry_is_read_checked_and_studied(folders):
    dataset = read_dataset(folders)
    assert dataset.labels == ("high", "low")
    assert dataset.keys == tuple(sorted(dataset.keys))
    assert dataset.paths == tuple(folders / key.replace("-", "/", 1).__add__(".wav") for key in dataset.keys)
    assert [dataset.keys[row] for row in dataset.test] == ["high-9", "low-9"]
    np.testing.assert_array_equal(dataset.targets[:, 0], [1.0] * 10 + [0.0] * 10)
    result = CliRunner().invoke(app, ["check", str(folders)])
    assert result.exit_code == 0, result.output
    assert "format    folders" in result.stdout.splitlines()
    assert "clips     20: 18 train, 2 test" in result.stdout


def test_a_trial_learns_the_clips_of_an_added_format(folders, tiny_file, tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    spec = DataSpec(source=str(folders), validation_fraction=0.3)
    data = open_study_data(spec, open_dataset(spec), inputs=LogMel(load_backbone(tiny_file).front_end))
    digests = {"backbone_digest": backbone_digest(load_backbone(tiny_file)), "log_mel_digest": data.digest}
    study = make_spec("toy", epochs=20, backbone=tiny_file, data=spec, provenance=digests)
    paths = {"normalisation/kind": "dataset", "mapper/kind": "linear", "optimiser/lr": 0.03}
    task = TrialTask(number=0, paths=paths, study=study, seed=0, shared=str(tmp_path / "study"), threads=1)
    *_, last = Session(task)
    assert set(last.best.f1_by_label) == {"high", "low"}
    assert last.best.figures["macro_f1"] == 1  # two tones are easy to separate


def test_an_added_format_s_problems_are_raised_by_a_study_and_listed_by_a_check(folders):
    (folders / "low/5.wav").rename(folders / "low/5.mp3")
    (folders / "low/6.wav").rename(folders / "low/6.mp3")
    with pytest.raises(ValueError, match=rf"^{folders}: 6\.mp3 is no \.wav, 5\.mp3 is no"):
        read_dataset(folders)
    result = CliRunner().invoke(app, ["check", str(folders)])
    assert result.exit_code == 1
    assert "6.mp3 is no .wav" in result.stdout


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"keys": ("a", "a", "b", "c")}, "a more than once"),
        ({"targets": np.full((4, 1), 2.0)}, "key a, x: label 2.0"),
        ({"targets": np.zeros((4, 2))}, "do not fit 4 keys and 1 labels"),
        ({"train": ["a", "b", "z"]}, "key z is in a split"),
        ({"train": ["a", "b", "c", "d"]}, "key d is in both"),
        ({"train": ["a", "b"]}, "key c is in neither"),
    ],
)
def test_the_rules_for_every_format_are_checked(tmp_path, changed, match):
    how = {"keys": tuple("abcd"), "targets": np.zeros((4, 1)), "train": ["a", "b", "c"], "test": ["d"], **changed}
    table = LabelTable(tmp_path / "labels", how["keys"], how["targets"], np.ones(how["targets"].shape, np.bool_))
    with pytest.raises(ValueError, match=match):
        make_dataset(tmp_path, ["x"], table, paths=[tmp_path] * 4, train=how["train"], test=how["test"])


def test_an_unknown_format_is_refused_with_the_known_ones_and_a_folder_that_may_be_meant(folders, tmp_path):
    root = Layout().write(tmp_path / "empty" / "d")
    with pytest.raises(FileNotFoundError, match=rf"class-map\.json.*README\.folders.*did you mean {root}\?$"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such directory"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="not a directory"):
        read_dataset(folders / "README.folders")
