"""Feature stores that lie in the cache for nothing: of an earlier version, or of a data set that is gone."""

import json
import logging
import shlex
from contextlib import suppress
from pathlib import Path

from rich import filesize

from harness.data.store_index import INDEX, STORE_FORMAT
from harness.features.audio import FRONT_END_VERSION

logger = logging.getLogger(__name__)


def warn_of_old_stores(folder: Path) -> None:
    """Say which stores in this folder are of no use, how large they are, and how to take them away, if there are any.

    None is removed: the program that made one may still be in use, and a disk that is not mounted looks like one
    whose data are gone.
    """
    with suppress(OSError):  # someone may be removing one at this moment
        if found := {path: why for path in sorted(folder.iterdir()) if (why := _why_useless(path))}:
            named = [f"{path.name} ({filesize.decimal(bytes_on_disk(path))}, {why})" for path, why in found.items()]
            remove = shlex.join(["rm", "-r", *map(str, found)])
            text = "%s: feature stores that this version has no use for: %s; to remove them: %s"
            logger.warning(text, folder, ", ".join(named), remove)


def bytes_on_disk(path: Path) -> int:
    """Return the room that the files of a directory take, holes not counted."""
    return sum(file.stat().st_blocks * 512 for file in path.iterdir())


def _why_useless(path: Path) -> str:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        if index["format"] < STORE_FORMAT or index["front_end_version"] < FRONT_END_VERSION:
            return "of an earlier version"
        return "" if Path(index["root"]).is_dir() else f"of {index['root']}, which is gone"
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # no store, or a damaged one, which is made anew when it is wanted
