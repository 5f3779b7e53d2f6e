"""One trial's files in the study's shared storage: a directory, or a URI such as `s3://bucket/studies/name`.

A file is whole or absent: local files are renamed into place, and object stores show a file only once it is written.
A killed trial can therefore trust its last checkpoint.
"""

import io
from dataclasses import dataclass
from typing import Any

import torch
from pyarrow import fs

LAST, BEST = "last.pt", "best.safetensors"

FIGURES = ("f1_by_label.png", "learning_curves.png", "input_change.png")
"""A trial's figures; only a trial that rewrites its input has the last one."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of trial `number` under the study's shared root."""

    shared: str
    number: int

    @property
    def directory(self) -> str:
        """Return the trial's directory or URI."""
        return f"{self.shared}/trials/{self.number:03d}"

    def path(self, name: str) -> str:
        """Return the path or URI of one file."""
        return f"{self.directory}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, replacing an older one."""
        filesystem, directory = fs.FileSystem.from_uri(self.directory)
        filesystem.create_dir(directory, recursive=True)
        target = f"{directory}/{name}"
        is_local = isinstance(filesystem, fs.LocalFileSystem)
        written = f"{target}.part" if is_local else target
        with filesystem.open_output_stream(written) as stream:
            stream.write(content)
        if is_local:
            filesystem.move(written, target)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        filesystem, path = fs.FileSystem.from_uri(self.path(name))
        if filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with filesystem.open_input_stream(path) as stream:
            content: bytes = stream.read()
            return content

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a state of tensors, numbers, strings and containers of them."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.write(name, buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """Return a saved state, on the CPU, or None if there is none."""
        content = self.read(name)
        if content is None:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state
