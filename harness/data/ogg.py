"""The pages of an Ogg file, whatever sound is in them.

Source: RFC 3533, section 6: a page's header has 27 bytes, of which byte 5 has flags, bytes 14 to 17 name the stream, 18
to 21 count its pages, and byte 26 says how many lengths follow. Flag 4 is that of a stream's last page.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_HEADER_BYTES, _IS_LAST = 27, 4


@dataclass(frozen=True)
class Page:
    """Where a page ends, if all of it is there, and what its header says."""

    end: int
    is_last: bool
    stream: bytes
    number: int


def is_ogg(content: bytes) -> bool:
    """Return whether a file begins as an Ogg file does."""
    return content.startswith(b"OggS")


def pages_of(content: bytes) -> Iterator[Page]:
    """Yield the pages, up to where no other one begins."""
    start = 0
    while content.startswith(b"OggS", start) and len(header := content[start : start + _HEADER_BYTES]) == _HEADER_BYTES:
        body = start + _HEADER_BYTES + header[26]
        end = body + sum(content[start + _HEADER_BYTES : body])
        yield Page(end, bool(header[5] & _IS_LAST), header[14:18], int.from_bytes(header[18:22], "little"))
        start = end


def why_not_whole(content: bytes) -> str:
    """Say what an Ogg file lacks; "" if all its pages are there.

    libsndfile decodes a cut Ogg file without complaint and returns a shorter clip.
    """
    *_, last = (None, *pages_of(content))
    if last is not None and last.is_last and last.end <= len(content):
        return ""
    end = 0 if last is None else last.end
    if end + _HEADER_BYTES > len(content):
        return f"truncated, its {len(content)} bytes end before the last Ogg page does"
    return f"damaged, no Ogg page begins at byte {end} of its {len(content)}, where the next one should"


def is_in_order(content: bytes) -> bool:
    """Return whether the pages of each stream count up by one: none is lost, repeated or out of place."""
    previous: dict[bytes, int] = {}
    for page in pages_of(content):
        if page.number != previous.get(page.stream, page.number - 1) + 1:
            return False
        previous[page.stream] = page.number
    return True
