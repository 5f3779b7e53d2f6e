"""A list of what is wrong, by file."""

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
_OF_A_DAMAGED_FILE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Problems:
    """What is wrong, in the order in which it was found: lines of text below the name of a file or of a rule."""

    by_place: dict[str, list[str]] = field(default_factory=dict)

    def add(self, place: str, text: str) -> None:
        """Add a line."""
        self.by_place.setdefault(place, []).append(text)

    def attempt(self, place: str, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; if a file does not let it, add that and return None."""
        try:
            return read()
        except _OF_A_DAMAGED_FILE as error:
            self.add(place, str(error) or repr(error))
            return None

    def __len__(self) -> int:
        return sum(map(len, self.by_place.values()))
