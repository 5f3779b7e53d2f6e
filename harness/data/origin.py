"""Which file on a server the bytes that came are of, and whether an answer goes on with it."""

from dataclasses import dataclass

import requests


@dataclass(frozen=True)
class Origin:
    """Which file the bytes of a part belong to; `validator` is its strong ETag or its date, "" if it has neither."""

    url: str
    length: int | None
    validator: str


def continues(response: requests.Response, had: Origin | None, origin: Origin, start: int) -> bool:
    """Return whether an answer goes on from `start` with the file that the part is of."""
    if had is None or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        return False
    is_same_validator = had.url != origin.url or not origin.validator or had.validator == origin.validator
    return is_same_validator and had.length in {None, origin.length}


def origin_of(response: requests.Response, url: str, start: int) -> Origin:
    """Return of which file an answer is that begins at byte `start`."""
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
    if start:
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = response.headers.get("Content-Length", "")
    return Origin(url, int(length) if length.isdecimal() else None, validator)
