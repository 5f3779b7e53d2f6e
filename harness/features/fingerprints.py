"""The SHA-256 of audio files, remembered until a file's size or times change.

    CACHE/features/audio-0123456789abcdef.json    the files of one folder

Hashing OpenMIC-2018 takes seconds, and comparing sizes and times a tenth of one. Where this file is lost, such as
by a kill before it is written, the audio is hashed again.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from harness.features.cache import write_atomically

Stamp = tuple[int, int, int]
"""A file's size in bytes, and the times in ns at which its content and its entry last changed (mtime and ctime).

The system sets the last one, and nobody can set it back.
"""


def stamp_of(path: Path) -> Stamp | None:
    """Return a file's stamp, or None if there is no such file. Take it before reading, so that a change shows."""
    try:
        status = path.stat()
    except OSError:  # the reader of the file will report it
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Fingerprints:
    """The remembered SHA-256, in hex, of audio files: one file below `cache` for each folder of audio."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[Path, dict[str, tuple[int, int, int, str]]] = {}
        self._new: dict[Path, dict[str, tuple[int, int, int, str]]] = {}

    def get(self, path: Path, stamp: Stamp | None) -> str:
        """Return the SHA-256 of a file, or "" if it is unknown or the file has changed.

        An older ctime is no change: machines that share the cache may have each its own copy of the audio.
        """
        folder = path.parent.absolute()
        if folder not in self._known:
            self._known[folder] = self._load(folder)
        known = self._known[folder].get(path.name)
        if known is None or stamp is None:
            return ""
        size, modified, changed, digest = known
        return digest if (size, modified) == stamp[:2] and stamp[2] <= changed else ""

    def put(self, path: Path, stamp: Stamp, digest: str) -> None:
        """Remember the SHA-256 of a file whose stamp was taken before it was read."""
        self._new.setdefault(path.parent.absolute(), {})[path.name] = (*stamp, digest)

    def save(self) -> None:
        """Add what is new to the files, unless this process may not write there."""
        for folder, new in self._new.items():
            content = {"folder": str(folder), "files": self._load(folder) | new}
            with suppress(OSError):
                write_atomically(self._file(folder), json.dumps(content).encode())

    def _file(self, folder: Path) -> Path:
        return self._cache / f"audio-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"

    def _load(self, folder: Path) -> dict[str, tuple[int, int, int, str]]:
        try:
            files = json.loads(self._file(folder).read_text(encoding="utf-8"))["files"]
            return {name: (int(a), int(b), int(c), str(digest)) for name, (a, b, c, digest) in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none yet, or damaged
