"""Rows of a file: what an array would give, without holding the file, and no crash where the file is not whole."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from harness.data.rows import StoredRows

SHAPE = (40, 6, 4)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float16)


@pytest.fixture
def stored(tmp_path, values):
    np.save(tmp_path / "rows.npy", values)
    return StoredRows(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    "index",
    [3, -1, np.int64(7), np.array([5, 0, 5]), [2, 1], slice(10, 30, 7), np.arange(40) % 3 == 0, np.zeros(0, np.int64)],
    ids=["one", "from the end", "numpy's", "several, one twice", "list", "slice", "mask", "none"],
)
def test_an_index_gives_what_it_gives_of_an_array(stored, values, index):
    found = stored[index]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, values[index], strict=True)


def test_rows_say_their_shape_and_type_and_number(stored):
    assert (stored.shape, stored.dtype, len(stored)) == (SHAPE, np.float16, 40)


def test_what_was_read_is_the_readers_own(stored, values):
    stored[[0, 1]][:] = 0
    np.testing.assert_array_equal(stored[[0, 1]], values[[0, 1]])


@pytest.mark.parametrize("index", [40, -41, np.array([0, 40])])
def test_a_row_that_is_not_there_is_an_index_error(stored, index):
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 40"):
        stored[index]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_other_numbers_and_flat_rows_are_read_too(tmp_path, dtype):
    np.save(tmp_path / "other.npy", np.arange(30, dtype=dtype))
    np.testing.assert_array_equal(StoredRows(tmp_path / "other.npy")[4:9], np.arange(4, 9, dtype=dtype), strict=True)


def test_who_unpickles_rows_opens_the_same_file(stored, values):
    pickled = pickle.dumps(stored)
    assert len(pickled) < 500
    np.testing.assert_array_equal(pickle.loads(pickled)[2], values[2])


def test_many_threads_read_at_once(stored, values):
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            rows = rng.integers(0, 40, 5)
            if not np.array_equal(stored[rows], values[rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_file_is_closed_with_its_last_reader(tmp_path, values):
    np.save(tmp_path / "rows.npy", values)

    def is_open():
        return any(
            link.readlink() == tmp_path / "rows.npy" for link in Path("/proc/self/fd").iterdir() if link.exists()
        )

    rows = StoredRows(tmp_path / "rows.npy")
    assert is_open()
    del rows
    assert not is_open()


def test_a_file_shorter_than_its_header_says_is_refused(stored):
    os.truncate(stored.path, stored.path.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"rows\.npy: 2047 bytes long; its header says \(40, 6, 4\), which takes 2048"):
        StoredRows(stored.path)


def test_a_file_that_is_cut_while_it_is_read_is_an_error_and_no_crash(stored, values):
    os.truncate(stored.path, stored.path.stat().st_size - 10)
    np.testing.assert_array_equal(stored[:39], values[:39])
    with pytest.raises(OSError, match=r"rows\.npy: ends before byte 2048; it was cut while it was in use"):
        stored[39]


def header(text, *, version=1, length=None):
    """Return the head of an .npy file that says so, and some rows."""
    text = f"{text:<118}\n".encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 if version == 1 else 4, "little") + text + bytes(800)


DAMAGED = {
    "empty": b"",
    "Ogg": b"OggS",
    "cut": b"\x93NUMPY\x01\x00",
    "7": b"\x93NUMPY\x07\x00" + bytes(200),
    "garbage": header("".join(map(chr, np.random.default_rng(0).integers(1, 128, 100)))),
    "a bracket": header("{'descr': '<f2', 'fortran_order': False, 'shape': (40, 6"),
    "an indent": header("  1\n 2"),
    "many brackets": header("(" * 9000),
    "many signs": header("-" * 9000 + "1"),
    "no shape": header("{'descr': '<f2', 'fortran_order': False}"),
    "another type": header("{'descr': 'what', 'fortran_order': False, 'shape': (40,), }"),
    "gigabytes": header("{}", version=2, length=1 << 31),
    "a zero byte": header("{'descr': '<f2', \0}"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=[*DAMAGED])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "other.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.npy: not an \.npy file \(.+\)$"):
        StoredRows(tmp_path / "other.npy")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((-40, 6, 4), "must hold numbers in rows"),
        ((40, -6, 4), "must hold numbers in rows"),
        ((1 << 70, 6, 4), "its header says"),
        ((40, 1 << 62, 1 << 62), "its header says"),
    ],
)
def test_a_shape_that_no_file_has_is_refused(tmp_path, shape, said):
    (tmp_path / "other.npy").write_bytes(header(f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"))
    with pytest.raises(ValueError, match=rf"other\.npy: .*{said}"):
        StoredRows(tmp_path / "other.npy")


@pytest.mark.parametrize(
    "array",
    [np.asfortranarray(np.zeros((3, 4))), np.float32(1), np.array([None]), np.array(["a", "b"])],
    ids=["columns", "scalar", "objects", "text"],
)
def test_what_does_not_lie_in_rows_of_numbers_is_refused(tmp_path, array):
    np.save(tmp_path / "odd.npy", array)
    with pytest.raises(ValueError, match=r"odd\.npy: .*; must hold numbers in rows"):
        StoredRows(tmp_path / "odd.npy")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"rows\.npy"):
        StoredRows(tmp_path / "rows.npy")


READ_ALL = """
import sys
from pathlib import Path
from harness.data.rows import StoredRows
rows = StoredRows(Path(sys.argv[1]))
for start in range(0, len(rows), 8):
    rows[start : start + 8]
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(*(int(status[name].split()[0]) / 1024 for name in ("VmHWM", "RssFile")))
"""


@pytest.mark.drill
def test_a_process_that_reads_all_of_a_large_file_stays_small(tmp_path):
    shape = (4000, 1024, 128)  # 1 GB, of which the disk holds none
    np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.float16, shape=shape)
    command = [sys.executable, "-c", READ_ALL, str(tmp_path / "large.npy")]
    peak, mapped = map(
        float, subprocess.check_output(command, text=True, timeout=120, cwd=Path(__file__).parents[1]).split()
    )
    assert peak < 150  # MB: an interpreter with NumPy takes 40
    assert mapped < 100
