"""From a sound file to the log-mel spectrogram that AST was trained on.

Conventions: samples are float32 in [-1, 1], shaped (sample, channel); a spectrogram is float32, shaped
(frame, mel), in natural-log energy, not normalised. Digital silence is log(float32 epsilon) = -15.94 in every
bin; frames past the end of a clip are 0, as in AST.
"""

import base64
import contextlib
import functools
import io
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import soundfile
from jaxtyping import Float, Float32

FRONT_END_VERSION = 4
"""Goes up when `decode` or `log_mel` begins to give other numbers for a file, or none: stores are then rebuilt."""


AUDIBLE = 1e-4
"""A sample of at least this magnitude, -80 dB of full scale, may be audible."""

_MOST_BYTES, _MOST_SECONDS = 256_000_000, 3600
"""What one file may hold, what it may decode to, in float32 over all its channels, and how long it may last.

A clip has 10 s, which are 3.5 MB.
"""


def decode(path: Path) -> tuple[Float[np.ndarray, "sample channel"], int]:
    """Read a sound file of any sample rate and channel count; return its samples and its sample rate in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not sound, ends too early, holds no samples, or holds NaN or infinite ones; or it is no clip
            but longer than an hour or 256 MB decoded, which is told by its header and not decoded, or by its size and
            not read.
    """
    if too_large := why_too_large(path.stat().st_size):
        raise ValueError(f"{path}: {too_large}")
    return decode_bytes(path.read_bytes(), source=str(path))


def decode_bytes(content: bytes, *, source: str) -> tuple[Float[np.ndarray, "sample channel"], int]:
    """Decode a sound file's bytes as `decode` does; `source` names it in what is raised.

    Raises:
        ValueError: as `decode` does.
    """
    if not content:
        raise ValueError(f"{source}: empty, a file of 0 bytes")
    if is_ogg(content) and (lacking := why_not_whole(content)):
        raise ValueError(f"{source}: {lacking}")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            sample_rate, n_expected = int(file.samplerate), int(file.frames)
            if too_long := why_too_long(n_expected, file.channels, sample_rate):
                raise ValueError(f"{source}: {too_long}")
            samples = _samples_of(file, content)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{source}: not readable as sound ({_reason(error)})") from error
    if len(samples) != n_expected:
        raise ValueError(f"{source}: damaged, {len(samples)} of its {n_expected} samples can be decoded")
    check_samples(samples, source=source)
    return samples, sample_rate


def _samples_of(file: soundfile.SoundFile, content: bytes) -> Float[np.ndarray, "sample channel"]:
    """Return what a file holds: by a faster decoder, if there is one for its format and that decodes all of it."""
    is_vorbis = (file.format, file.subtype) == ("OGG", "VORBIS")
    if is_vorbis and file.channels <= MOST_CHANNELS:
        samples = decode_vorbis(content)
        if samples.shape == (file.frames, file.channels):
            return samples
    return np.asarray(file.read(dtype="float32", always_2d=True))


def why_too_large(n_bytes: int) -> str:
    """Say what keeps a file of this size from being read; "" if nothing does. It would fill the memory as it is."""
    if n_bytes <= _MOST_BYTES:
        return ""
    return (
        f"too large for a clip, a file of {n_bytes / 1e6:,.0f} MB; at most {_MOST_BYTES // 10**6} MB are read: cut "
        "recordings into clips"
    )


def why_too_long(n_samples: int, n_channels: int, sample_rate: int) -> str:
    """Say what keeps a file of this length, as its header has it, from being read; "" if nothing does.

    It would fill the memory: once decoded, or, if its sample rate is low, once resampled.
    """
    n_bytes, seconds = 4 * n_samples * n_channels, n_samples / sample_rate
    if n_bytes <= _MOST_BYTES and seconds <= _MOST_SECONDS:
        return ""
    return (
        f"too long for a clip, {seconds / 60:,.1f} min and {n_bytes / 1e6:,.0f} MB decoded, unless its header is "
        f"damaged; at most {_MOST_SECONDS // 60} min and {_MOST_BYTES // 10**6} MB are read: cut recordings into clips"
    )


def check_samples(samples: np.ndarray, *, source: str) -> None:
    """Refuse samples that are not finite values shaped (sample, channel).

    Raises:
        ValueError: the message names `source` and the first bad sample.
    """
    if samples.ndim != 2 or samples.shape[1] == 0:
        raise ValueError(f"{source}: samples have shape {samples.shape}; the rule is (sample, channel)")
    if len(samples) == 0:
        raise ValueError(f"{source}: holds no samples")
    # a NaN is both the least and the largest; to look at each sample takes three times as long
    if not (np.isfinite(samples.min()) and np.isfinite(samples.max())):
        row = int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise ValueError(f"{source}: sample {row} is {samples[row].tolist()}; samples must be finite")


def _reason(error: soundfile.SoundFileError) -> str:
    """Return what libsndfile says, without the name of the stream that we gave it."""
    return str(getattr(error, "error_string", error)).rstrip(".")


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


_SAMPLES_AT_A_TIME = "16384"


MOST_CHANNELS = 2
"""From three on FFmpeg has the channels in an order of its own, and PyAV 18 reads past the last one of eight."""


def decode_vorbis(content: bytes) -> Float32[np.ndarray, "sample channel"]:
    """Return the samples of an Ogg Vorbis file of `MOST_CHANNELS` or fewer, within 1e-6 of libvorbis's.

    There are fewer where the file is damaged, and none if it wholly is.

    One call into FFmpeg decodes 16,384 samples, and not a packet's 1,024: Python takes half as long again to ask for
    each packet, and threads would wait for one another's Python.
    """
    import av  # noqa: PLC0415  20 MB, which only who prepares clips needs

    parts: list[np.ndarray] = []
    with contextlib.suppress(av.error.FFmpegError):  # the end, of all or of what can be decoded
        graph = av.filter.Graph()
        graph.threads = 1
        # as an address, the file needs neither be read again nor have a name without FFmpeg's special characters
        address = f"data:audio/ogg;base64,{base64.b64encode(content).decode()}"
        source = graph.add("amovie", filename=address, format_name="ogg", stream_index="0")
        gathered, sink = graph.add("asetnsamples", n=_SAMPLES_AT_A_TIME, p="0"), graph.add("abuffersink")
        graph.link_nodes(source, gathered, sink)
        while True:
            parts.append(cast(av.AudioFrame, sink.pull()).to_ndarray())  # (channel, sample)
    return np.concatenate(parts, axis=1).T if parts else np.zeros((0, 0), np.float32)


def regular_size(path: Path) -> int:
    """Return the bytes of a regular file.

    Raises:
        OSError: it is something else, or is not there.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path}: not a regular file but {_kind(status.st_mode)}")
    return status.st_size


def mixes_to_silence(samples: Float[np.ndarray, "sample channel"]) -> bool:
    """Return whether nothing is audible in the mean over channels: no sample reaches -80 dB of full scale.

    All samples may be zero, or the channels may cancel, as in stereo with one channel inverted.
    """
    total = functools.reduce(np.add, samples.T)  # ten times as fast as the mean over a short axis
    return bool(max(total.max(initial=0), -total.min(initial=0)) < AUDIBLE * samples.shape[1])


def why_unopened(path: Path, error: OSError) -> str:
    """Say what kept a file from being opened, without its name."""
    return error.strerror or str(error).removeprefix(f"{path}: ")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
