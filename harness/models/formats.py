"""Which format the weights in a file are in, told by its first bytes.

Its name is as somebody gave it: the original release's are `.pth`, and copies of them `.pt`, `.ckpt` or `.PTH`.
"""

from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""What files of weights are commonly named, in lower case."""

_N_BYTES = 512


def is_pickled(file: Path) -> bool:
    """Return whether a file is one of PyTorch's own, of this time or of before 1.6; if not, it is of safetensors.

    Raises:
        ValueError: it is neither; the message says what it is, as far as that can be told.
    """
    with file.open("rb") as opened:
        head = opened.read(_N_BYTES)
    if head[4:9] == b"\0\0\0\0{":  # a length below 4 GB in eight bytes, and the header, which is JSON
        return False
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle of protocol 2 or above
        return True
    raise ValueError(f"{file}: {_what_it_is(head)}")


def _what_it_is(head: bytes) -> str:
    if not head:
        return "empty; download the file anew"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in the place of the weights; run `git lfs pull` where it was cloned"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page in the place of the weights; download the file anew, by the address of the file itself"
    return f"neither a safetensors file nor one of PyTorch's, written by `torch.save`: it begins with {head[:16]!r}"
