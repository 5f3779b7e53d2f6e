"""What a feature store is of: its index, and the name that follows from it."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.features.audio import FRONT_END_VERSION
from harness.features.log_mel import FrontEnd

STORE_FORMAT = 5
INDEX = "index.json"


@dataclass(frozen=True)
class Index:
    """The data set's directory, how its clips are heard, and their keys: row i belongs to `keys[i]`."""

    root: Path
    front_end: FrontEnd
    keys: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape of the features: clip, frame, mel."""
        return len(self.keys), self.front_end.n_frames, self.front_end.n_mels

    @property
    def name(self) -> str:
        """Return the name of the store: a digest of the index, and of the versions that shaped the features."""
        content = [STORE_FORMAT, FRONT_END_VERSION, asdict(self.front_end), str(self.root), self.keys]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_index(path: Path) -> Index:
    """Return what the store's index says.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format or version of the front end.
    """
    file = path / INDEX
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for stamp, ours in (("format", STORE_FORMAT), ("front_end_version", FRONT_END_VERSION)):
            if index[stamp] != ours:
                raise ValueError(f"it has {stamp} {index[stamp]!r}, this is {stamp} {ours}")
        return Index(Path(index["root"]), FrontEnd(**index["front_end"]), tuple(index["keys"]))
    except KeyError as error:
        raise ValueError(f"{file}: damaged (lacks {error})") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error})") from error


def write_index(path: Path, index: Index) -> None:
    """Write the index into the store's directory, and return once it is on the disk."""
    content = {
        "format": STORE_FORMAT,
        "front_end_version": FRONT_END_VERSION,
        "front_end": asdict(index.front_end),
        "root": str(index.root),
        "keys": index.keys,
    }
    with (path / INDEX).open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
