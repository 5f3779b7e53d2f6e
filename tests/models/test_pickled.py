"""PyTorch's own files that hold something else than named tensors: refused in words of ours, which name it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.models.backbones.release import read_state


def write(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    return tmp_path / "a.pth"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (np.zeros(3), "'numpy._core.multiarray._reconstruct'"),
        (np.float64(0.5), "'numpy._core.multiarray.scalar'"),
        (Path("x"), "'pathlib.PosixPath'"),
        (torch.nn.Linear(2, 2), "'torch.nn.modules.linear.Linear'"),
        (print, "'print'"),
        (Path.exists.__globals__["os"].system, "'posix.system'"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_is_not_unpickled_is_named_and_nobody_is_advised_to_unpickle_it(tmp_path, more, name, is_zip):
    torch.save({"weight": torch.zeros(2), "more": more}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        ValueError, match=rf"a\.pth: holds more than tensors, {re.escape(name)}, .*save .* alone"
    ) as raised:
        read_state(tmp_path / "a.pth")
    assert_plain(raised.value)


def assert_plain(error):
    assert "weights_only" not in str(error)
    assert str(error).isprintable()
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_a_name_with_control_characters_reaches_no_terminal(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"\x80\x02c\x1b[31mevil\nname\n.")
    with pytest.raises(ValueError, match=r"holds more than tensors, '\\x1b\[31mevil\.name'") as raised:
        read_state(tmp_path / "a.pth")
    assert_plain(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02",
        b"\x80\x02\xa6\x01",
        b"\x80\x02.",
        b"\x80\x02a.",
        b"\x80\x04\x95",
        b"\x80\x02X\xff\xff",
        b"\x80\x02h\x05.",
    ],
)
def test_a_damaged_pickle_is_named_whatever_goes_wrong_in_it(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth: not a whole checkpoint of tensors alone") as raised:
        read_state(tmp_path / "a.pth")
    assert_plain(raised.value)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_an_archive_of_torchscript_or_of_numpy_is_no_checkpoint(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    np.savez(tmp_path / "arrays.npz", weight=np.zeros(2))
    for name in ("script.pt", "arrays.npz"):
        with pytest.raises(ValueError, match=rf"{name}: not a whole checkpoint of tensors alone") as raised:
            read_state(tmp_path / name)
        assert_plain(raised.value)


@pytest.mark.parametrize(("key", "said"), [(0, "0"), (None, "None"), (("a", 1), r"\('a', 1\)"), (b"a", "b'a'")])
def test_a_key_that_is_no_string_is_named(tmp_path, key, said):
    file = write(tmp_path, {"weight": torch.zeros(2), key: torch.zeros(2)})
    with pytest.raises(ValueError, match=rf"a\.pth: the names of tensors must be strings, not {said}$"):
        read_state(file)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "but a list"),
        (torch.zeros(2), "but a Tensor"),
        ({"weight": torch.zeros(2), "epoch": 3}, "'epoch' is no tensor"),
        ({str(n): n for n in range(8)}, "'0', '1', '2', '3', '4' and 3 more are no tensors"),
        ({"epoch": 3, "model": {}}, "'epoch', 'model' are no tensors"),
        ({"epoch": 3, "model": {"weight": 1}}, "'epoch', 'model' are no tensors"),
        ({"a": {"weight": torch.zeros(2)}, "b": {"weight": torch.zeros(2)}}, "'a', 'b' are no tensors"),
        (
            {"state_dict": {"weight": torch.zeros(2)}},
            "'state_dict' is no tensor; such a mapping is under 'state_dict': save that alone",
        ),
        (
            {"model": {"weight": torch.zeros(2)}, "optimizer": {"state": {}}, "epoch": 3},
            "'model', 'optimizer', 'epoch' are no tensors; such a mapping is under 'model': save that alone",
        ),
    ],
)
def test_what_is_no_tensor_is_named_and_so_is_the_one_mapping_that_is_meant(tmp_path, state, message):
    with pytest.raises(ValueError, match=rf"a\.pth: holds no mapping of names to tensors.*{message}$"):
        read_state(write(tmp_path, state))


def nested():
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.zeros(3, device="meta"),
        nested,
    ],
)
def test_a_tensor_that_has_no_plain_array_of_values_is_named(tmp_path, make):
    file = write(tmp_path, {"bias": torch.zeros(2), "weight": make()})
    with pytest.raises(ValueError, match=r"a\.pth: 'weight' is sparse, nested or without values; save plain tensors$"):
        read_state(file)


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_pickle_of_another_protocol_is_told_as_perhaps_that(tmp_path, protocol):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth", pickle_protocol=protocol)
    with pytest.raises(
        ValueError, match=r"a\.pth: .* or of another pickle protocol than `torch\.save` writes by default"
    ):
        read_state(tmp_path / "a.pth")
