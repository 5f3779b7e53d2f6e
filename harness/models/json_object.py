"""A JSON object out of a file that may hold anything."""

import json
from typing import Any


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that a text, or its UTF-8 bytes, holds.

    Raises:
        ValueError: it holds none; the message says why.
    """
    try:
        found = json.loads(text if isinstance(text, str) else text.decode())
    except RecursionError as error:
        raise ValueError("not a JSON object (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not a JSON object ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object (a {type(found).__name__})")
    return found
