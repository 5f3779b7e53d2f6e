"""A trial's files are whole or not there, on a disk as in an object store."""

import torch

from harness.study.files import LAST, TrialFiles


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert TrialFiles(str(tmp_path), 3).load(LAST) is None


def test_a_half_written_file_is_never_seen(tmp_path):
    files = TrialFiles(str(tmp_path), 3)
    files.save(LAST, {"epoch": 1})
    (tmp_path / "trials/003/last.pt.part").write_bytes(b"half")
    assert files.load(LAST) == {"epoch": 1}
    files.save(LAST, {"epoch": 2})
    assert files.load(LAST) == {"epoch": 2}


def test_a_uri_is_read_and_written_like_a_directory(tmp_path):
    files = TrialFiles(f"file://{tmp_path}/bucket", 1)
    files.save(LAST, {"weights": torch.ones(2)})
    assert torch.equal(files.load(LAST)["weights"], torch.ones(2))
