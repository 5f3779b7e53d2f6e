"""The pages of an Ogg file, whatever sound is in them.

Source: RFC 3533, section 6: a page's header has 27 bytes, of which byte 5 has flags, bytes 14 to 17 name the stream, 18
to 21 count its pages, 22 to 25 are a checksum of the page, and byte 26 says how many lengths follow. Flag 2 is that of
a stream's first page, flag 4 that of its last.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

HEADER_BYTES, _IS_FIRST, _IS_LAST = 27, 2, 4
_CHECKSUM = slice(22, 26)
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Page:
    """Where a page lies in its file, and what its header says: `number` is its place in its stream."""

    start: int
    end: int
    is_first: bool
    is_last: bool
    stream: bytes
    number: int


def is_ogg(content: bytes) -> bool:
    """Return whether a file begins as an Ogg file does."""
    return content.startswith(b"OggS")


def pages_of(content: bytes) -> Iterator[Page]:
    """Yield the pages, up to where no other one begins."""
    start = 0
    while content.startswith(b"OggS", start) and len(header := content[start : start + HEADER_BYTES]) == HEADER_BYTES:
        body = start + HEADER_BYTES + header[26]
        end = body + sum(content[start + HEADER_BYTES : body])
        yield Page(
            start=start,
            end=end,
            is_first=bool(header[5] & _IS_FIRST),
            is_last=bool(header[5] & _IS_LAST),
            stream=header[14:18],
            number=int.from_bytes(header[18:22], "little"),
        )
        start = end


def checksum(page: bytes) -> bytes:
    """Return the checksum of a page, whose own place in it counts as zeros.

    It is zlib's polynomial with the bits of each byte the other way round, and with 0 where zlib has all ones.
    """
    zeroed = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(zeroed.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "little").translate(_MIRRORED)[::-1]


def why_not_whole(content: bytes) -> str:
    """Say what keeps an Ogg file from being one whole recording; "" if all its pages are there, undamaged and in order.

    Decoders go on without a word. Of a file that is cut, or whose first or last page of sound is damaged, they return
    a shorter clip, and of recordings one after another the first. For a page that is lost, repeated or out of place
    FFmpeg makes samples up, as many as there should be.
    """
    numbers: dict[bytes, int] = {}
    last = None
    for page in pages_of(content):
        where = f"the Ogg page at byte {page.start} of its {len(content)}"
        number = numbers.get(page.stream, page.number)
        if page.end > len(content):
            break
        whole = content[page.start : page.end]
        if checksum(whole) != whole[_CHECKSUM]:
            return f"damaged, {where} fails its checksum"
        if page.is_first and last is not None and not last.is_first:
            return f"several recordings one after another, the next one from byte {page.start} on; a clip is one"
        if page.number != number:
            return f"damaged, {where} is number {page.number} of its stream, where number {number} should be"
        numbers[page.stream] = page.number + 1
        last = page
    end = 0 if last is None else last.end
    if last is not None and last.is_last and not content.startswith(b"OggS", end):
        return ""  # what may follow is of no recording
    return _why_it_ends(content, end)


def _why_it_ends(content: bytes, end: int) -> str:
    """Say what is wrong where the last whole page ends, which is not that of a stream's end."""
    if content.startswith(b"OggS", end) or end + HEADER_BYTES > len(content):
        return f"truncated, its {len(content)} bytes end before the last Ogg page does"
    return f"damaged, no Ogg page begins at byte {end} of its {len(content)}, where the next one should"
