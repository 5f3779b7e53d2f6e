"""Where this machine keeps what can be computed again."""

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Return the absolute cache root: $REPROGRAMMING_CACHE, else the user's cache directory."""
    override = os.environ.get("REPROGRAMMING_CACHE")
    return Path(override).absolute() if override else platformdirs.user_cache_path("reprogramming-harness")


def write_whole(file: Path, text: str) -> None:
    """Write a file so that, whenever this process is killed, it holds the old text or the new one."""
    temporary = file.with_name(f"{file.name}.part")
    temporary.write_text(text)
    temporary.replace(file)
