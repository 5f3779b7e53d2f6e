import json
from pathlib import Path

import pytest

from tracking.spool import Spool
from tracking.store import Address

STORE = "sqlite:////data/mlflow.db (demo)"


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path)


def test_an_outbox_that_does_not_exist_is_empty(spool):
    assert list(spool.read()) == []
    assert spool.left(STORE) == 0
    assert spool.rejected() == []


def test_lines_come_back_in_order_with_the_offset_after_each(spool):
    spool.append(["a\n", "bé\n"])
    spool.append(["c\n"])
    assert list(spool.read()) == [("a\n", 2), ("bé\n", 6), ("c\n", 8)]
    assert list(spool.read(6)) == [("c\n", 8)]


def test_a_line_without_its_end_is_not_there_and_repair_removes_it(spool):
    spool.append(["a\n"])
    with spool.path.open("a") as file:
        file.write('{"torn')
    assert [line for line, _ in spool.read()] == ["a\n"]
    spool.repair()
    assert spool.path.read_text() == "a\n"


def test_repair_leaves_a_whole_outbox_alone(spool):
    spool.append(["a\n", "b\n"])
    spool.repair()
    assert spool.path.read_text() == "a\nb\n"


def test_each_destination_has_its_own_offset(spool):
    spool.append(["a\n", "b\n"])
    spool.set_delivered(STORE, 2)
    assert spool.left(STORE) == 1
    assert spool.left("http://head:5000 (demo)") == 2


def test_an_outbox_shorter_than_what_was_delivered_has_nothing_left(spool):
    spool.append(["a\n"])
    spool.set_delivered(STORE, 100)
    assert spool.delivered(STORE) == 2


def test_only_one_holds_the_lock_and_letting_go_frees_it(spool, tmp_path):
    other = Spool(tmp_path)
    with spool.lock() as mine, other.lock() as theirs:
        assert (mine, theirs) == (True, False)
    with other.lock() as theirs:
        assert theirs


def test_the_address_is_kept_without_the_password(spool):
    spool.write_address(Address("https://me:secret@head:5000", "demo", Path("/artifacts")))
    assert "secret" not in (spool.study_dir / "outbox.address.json").read_text()
    assert spool.read_address() == Address("https://head:5000", "demo", Path("/artifacts"))
    assert spool.read_address(tracking_uri="http://other") == Address("http://other", "demo")


def test_a_directory_without_an_outbox_says_so(spool):
    with pytest.raises(ValueError, match=r"holds no outbox \(outbox\.address\.json is missing\)"):
        spool.read_address()


def test_what_was_refused_is_kept_with_the_reason(spool):
    spool.reject("a\n", destination=STORE, reason="no such name")
    assert spool.rejected() == [{"reason": "no such name", "destination": STORE, "line": "a"}]
    assert json.loads(spool.rejected_path.read_text())


def test_a_refusal_half_written_hides_no_other(spool):
    spool.reject("a\n", destination=STORE, reason="first")
    with spool.rejected_path.open("a") as file:
        file.write('{"reason": "to')
    assert [entry["reason"] for entry in spool.rejected()] == ["first"]
    spool.reject("b\n", destination=STORE, reason="second")
    assert [entry["reason"] for entry in spool.rejected()] == ["first", "second"]


def test_an_unreadable_offset_means_that_nothing_was_delivered(spool):
    spool.append(["a\n"])
    spool.set_delivered(STORE, 2)
    (spool.study_dir / "outbox.delivered.json").write_text("")
    assert spool.left(STORE) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_an_error_not_half_a_line(tmp_path):
    (tmp_path / "outbox.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        Spool(tmp_path).append(["a\n"])
