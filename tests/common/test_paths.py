"""Files that are written whole or not at all, and what is said of those that are not whole."""

import pytest

from harness.common.files import unfinished, write_whole
from harness.common.records import to_json
from harness.config.study import STUDY_FILE, DataSpec, StudyPlace
from harness.evaluation.plan import RUNS_FILE, RunList, read_runs
from harness.reproduction.run import _settle
from harness.reproduction.spec import SETTINGS, Reproduction
from harness.study.run import locked
from tests.support.evaluations import chosen_in, extended, make_spec, make_study


@pytest.fixture
def place(tmp_path):
    return make_study(tmp_path)


@pytest.mark.parametrize("own_file", [STUDY_FILE, RUNS_FILE, SETTINGS])
def test_what_a_killed_process_left_half_written_does_not_take_the_name(tmp_path, own_file):
    place = StudyPlace.of(str(tmp_path), "s")
    place.home.mkdir()
    left = unfinished(place.home / own_file)
    left.write_text('{"na')
    with locked(place, is_new=True, own_file=own_file):
        assert not left.exists()


def test_a_half_written_file_is_where_write_whole_writes_and_something_else_still_takes_the_name(tmp_path, monkeypatch):
    place = StudyPlace.of(str(tmp_path), "s")
    place.home.mkdir()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: None)  # as if it were killed before
    write_whole(place.spec_file, "{")
    assert [file.name for file in place.home.iterdir()] == [unfinished(place.spec_file).name]
    (place.home / "notes.txt.part").write_text("kept")
    with pytest.raises(ValueError, match="holds something else; choose another --name"), locked(place, is_new=True):
        pass
    assert unfinished(place.spec_file).exists()


CUT = ("cut", lambda text: text[: len(text) // 2])
EMPTY = ("empty", lambda text: "")
NO_OBJECT = ("no object", lambda text: "[]")
NULL = ("null", lambda text: "null")
MISSING = ("missing", lambda text: text.replace('"epochs": 3,', ""))
UNKNOWN = ("unknown", lambda text: text.replace('"epochs": 3,', '"epochs": 3, "hours": 3,'))
UNKNOWN_DATA = ("unknown data", lambda text: text.replace('"split_seed"', '"splits_seed"'))
SPOILT = pytest.mark.parametrize(
    "spoil",
    [pytest.param(spoil, id=name) for name, spoil in (CUT, EMPTY, NO_OBJECT, NULL, MISSING, UNKNOWN, UNKNOWN_DATA)],
)


def refused(file, read):
    with pytest.raises(ValueError, match="restore a whole copy") as error:
        read()
    assert str(error.value).startswith(f"{file}: cut short")


@SPOILT
def test_a_study_file_that_is_not_whole_is_named(place, spoil):
    place.spec_file.write_text(spoil(place.spec_file.read_text()))
    refused(place.spec_file, place.read_spec)


@SPOILT
def test_a_list_of_runs_that_is_not_whole_is_named(place, spoil):
    file = place.home / RUNS_FILE
    extended(RunList({}), chosen_in(place)).write(place)
    file.write_text(spoil(file.read_text()))
    refused(file, lambda: read_runs(place.home))


@SPOILT
def test_a_reproduction_file_that_is_not_whole_is_named(tmp_path, spoil):
    wanted = Reproduction("r", str(tmp_path), DataSpec(), ("unet",), 1, 1, epochs=3, backbone="ast-nano")
    (tmp_path / "r").mkdir()
    (tmp_path / "r.unet").mkdir()
    StudyPlace.of(str(tmp_path), "r.unet").write_spec(make_spec("r.unet"))
    file = tmp_path / "r" / SETTINGS
    file.write_text(spoil(to_json(wanted, indent=2)))
    refused(file, lambda: _settle(wanted))
