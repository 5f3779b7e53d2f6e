"""Strings out of pickled arrays, and nothing else out of them."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from harness.data.npz import member_names, read_array, read_strings

KEYS = ["000046_3840", "000135_483840", "155311_453120"]


def write_pickled(path, pickled):
    """Write an .npz whose `sample_key` claims to be an object array and has these bytes as its pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (len(KEYS),)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sample_key.npy", header.getvalue() + pickled)
    return path


class Payload:
    def __init__(self, reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def test_object_arrays_and_plain_arrays_of_strings_are_read_alike(tmp_path):
    np.savez(tmp_path / "object.npz", sample_key=np.array(KEYS, dtype=object))
    np.savez(tmp_path / "plain.npz", sample_key=np.array(KEYS))
    assert read_strings(tmp_path / "object.npz", "sample_key") == tuple(KEYS)
    assert read_strings(tmp_path / "plain.npz", "sample_key") == tuple(KEYS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("element", [str, np.str_])
def test_every_protocol_and_both_kinds_of_string_are_read(tmp_path, protocol, element):
    array = np.array([element(key) for key in KEYS], dtype=object)
    path = write_pickled(tmp_path / "a.npz", pickle.dumps(array, protocol=protocol))
    assert read_strings(path, "sample_key") == tuple(KEYS)


def test_the_module_names_of_numpy_1_are_read(tmp_path):
    old = pickle.dumps(np.array(KEYS, dtype=object), protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in old
    assert read_strings(write_pickled(tmp_path / "a.npz", old), "sample_key") == tuple(KEYS)


@pytest.mark.parametrize(
    "make",
    [
        lambda payload: payload,
        lambda payload: [*KEYS, payload],
        lambda payload: np.array([*KEYS, payload], dtype=object),
    ],
    ids=["alone", "in a list", "in an array"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, make, protocol):
    proof = tmp_path / "it ran"
    hostile = pickle.dumps(make(Payload((os.mkdir, (str(proof),)))), protocol=protocol)
    path = write_pickled(tmp_path / "a.npz", hostile)
    with pytest.raises(ValueError, match=r"a\.npz: array 'sample_key'.*calls for posix\.mkdir"):
        read_strings(path, "sample_key")
    assert not proof.exists()
    pickle.loads(hostile)  # the payload does work: only the reader stops it
    assert proof.exists()


@pytest.mark.parametrize(
    "reduced",
    [(eval, ("1",)), (np.memmap, ("x",)), (np.loadtxt, ("x",)), (getattr, ("x", "upper"))],
    ids=["eval", "memmap", "loadtxt", "getattr"],
)
def test_no_other_name_of_numpy_or_python_is_called(tmp_path, reduced):
    path = write_pickled(tmp_path / "a.npz", pickle.dumps(Payload(reduced), protocol=4))
    with pytest.raises(ValueError, match="not part of an array of strings"):
        read_strings(path, "sample_key")


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], np.array([1, 2, "x"], dtype=object), KEYS])
def test_a_pickle_of_anything_but_an_array_of_strings_is_refused(tmp_path, content):
    path = write_pickled(tmp_path / "a.npz", pickle.dumps(content, protocol=4))
    with pytest.raises(ValueError, match=r"a\.npz: array 'sample_key' must be a row of strings"):
        read_strings(path, "sample_key")


@pytest.mark.parametrize("cut", [0, 1, 10, 60])
def test_a_cut_pickle_is_refused(tmp_path, cut):
    whole = pickle.dumps(np.array(KEYS, dtype=object), protocol=4)
    path = write_pickled(tmp_path / "a.npz", whole[:cut])
    with pytest.raises(ValueError, match=r"a\.npz: array 'sample_key' is not readable"):
        read_strings(path, "sample_key")


def test_arrays_of_objects_are_not_read_as_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", Y_true=np.array([0.1, None], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: array 'Y_true' is not readable"):
        read_array(tmp_path / "a.npz", "Y_true")


def test_a_missing_array_is_named_with_those_there(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros(2), Y=np.zeros(2))
    assert member_names(tmp_path / "a.npz") == {"X", "Y"}
    with pytest.raises(ValueError, match=r"a\.npz: no array 'Z' in it; it has X, Y"):
        read_array(tmp_path / "a.npz", "Z")


@pytest.mark.parametrize("damage", [bytes(40), b"\xff" * 40], ids=["zeros", "ones"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, sample_key=np.array(KEYS * 500, dtype=object), Y_true=np.arange(3000.0))
    content = bytearray(path.read_bytes())
    for start in (len(content) // 20, len(content) * 3 // 4):  # inside each of the two arrays
        content[start : start + len(damage)] = damage
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: array 'sample_key' is not readable"):
        read_strings(path, "sample_key")
    with pytest.raises(ValueError, match=r"a\.npz: array 'Y_true' is not readable"):
        read_array(path, "Y_true")


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "a.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.npz: not an \.npz file"):
        read_strings(tmp_path / "a.npz", "sample_key")
