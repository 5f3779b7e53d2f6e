"""What a file of weights is, by what is in it: names are as people give them, and a download may bring anything."""

import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.models.backbones.checkpoints import backbone_digest, geometry_of, load_ast, origin_of
from tests.support.ast_files import SMALL, random_ast, released

RELEASED = {**SMALL, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512, "num_mel_bins": 128}
RELEASED |= {"max_length": 1024, "frequency_stride": 16, "time_stride": 16}


@pytest.fixture
def tensors(tmp_path):
    """Return the tensors of an AST under the names of the release; its `config.json` is beside them."""
    random_ast(**RELEASED).save_pretrained(tmp_path)
    return released(load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("name", "is_zip"),
    [("a.pt", True), ("a.ckpt", True), ("a.PTH", True), ("a.Bin", False), ("a", False), ("a.safetensors", True)],
)
def test_pytorch_s_own_files_are_read_whatever_their_suffix(tmp_path, tensors, name, is_zip):
    torch.save(tensors, tmp_path / "audioset.pth")
    torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    expected = load_ast(tmp_path / "audioset.pth")
    assert backbone_digest(load_ast(tmp_path / name)) == backbone_digest(expected)
    assert geometry_of(str(tmp_path / name)) == expected.geometry


@pytest.mark.parametrize("name", ["a.pth", "a.SAFETENSORS", "a"])
def test_safetensors_are_read_whatever_their_suffix(tmp_path, tensors, name):
    expected = load_ast(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    assert backbone_digest(load_ast(tmp_path / name)) == backbone_digest(expected)
    assert geometry_of(str(tmp_path / name)) == expected.geometry


@pytest.mark.parametrize("n", range(560, 760, 8))
def test_a_header_whose_length_begins_like_a_pickle_is_one_of_safetensors(tmp_path, n):
    file = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(2)}, file, metadata={"note": " " * n})
    with pytest.raises(ValueError, match=r"a\.safetensors: neither Hugging Face's key names nor a `geometry`"):
        load_ast(file)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 346404948\n"


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pth"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, r"a Git LFS pointer .* `git lfs pull`"),
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>" * 40, r"a web page .* download the file anew"),
        (b"\xef\xbb\xbf\r\n <HTML><HEAD>", r"a web page .* download the file anew"),
        (b"", r"empty; download the file anew"),
        (
            b'{"error": "Invalid username"}',
            r"neither a safetensors file nor one of PyTorch's, .*begins with b'\{\"error",
        ),
        (b"\xb8\x05\0\0\0", r"neither a safetensors file nor one of PyTorch's, .*begins with b'\\xb8\\x05\\x00"),
    ],
)
def test_what_holds_no_weights_is_called_by_its_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for reads in (load_ast, lambda file: geometry_of(str(file))):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: {message}"):
            reads(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_directory_in_the_place_of_the_weights_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    for reads in (load_ast, lambda place: geometry_of(str(place)), lambda place: origin_of(str(place))):
        with pytest.raises(ValueError, match=rf"backbone .*{re.escape(name)}: must be a file, and is a directory"):
            reads(tmp_path)


def test_what_is_neither_a_file_nor_a_directory_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: must be a file"):
        load_ast(tmp_path / "a.pth")


def test_a_directory_in_the_place_of_the_config_is_named(tmp_path, tensors):
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json: a file of this name is needed beside the weights"):
        load_ast(tmp_path)
