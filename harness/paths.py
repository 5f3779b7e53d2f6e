"""Where this machine keeps what can be computed again."""

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Return the absolute cache root: $REPROGRAMMING_CACHE, else the user's cache directory."""
    override = os.environ.get("REPROGRAMMING_CACHE")
    return Path(override).absolute() if override else platformdirs.user_cache_path("reprogramming-harness")
