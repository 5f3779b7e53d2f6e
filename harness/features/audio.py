"""Decoding of sound files, refusing those that are damaged, cut short or implausible.

Conventions: samples are float32 in [-1, 1], shaped (sample, channel).
"""

import base64
import contextlib
import functools
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import soundfile
from jaxtyping import Float, Float32

FRONT_END_VERSION = 5
"""Raise it when `decode` or `log_mel` gives other numbers for a file, or none: caches are then rebuilt."""
AUDIBLE = 1e-4
"""A sample of at least this magnitude, -80 dB of full scale, may be audible."""
MAX_SAMPLE_RATE = 768_000
_MOST_BYTES, _MOST_SECONDS = 256_000_000, 3600
"""Limits of one file: bytes on disk, bytes decoded to float32 over all channels, and seconds. A clip takes 3.5 MB."""
_CHECKED_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "VOC", "FLAC", "OGG", "MP3")
"""Containers that state their length, and in which libsndfile or this module notices a cut."""
_STREAMED = 0x7FFFF000
"""From this size on, a header of a streaming writer means that the length was not known."""

Samples = Float[np.ndarray, "sample channel"]


def decode(path: Path) -> tuple[Samples, int]:
    """Read a sound file of any sample rate and channel count; return its samples and its sample rate in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not sound, is cut short or damaged, holds no samples, or holds NaN or infinite ones; or its
            header states more than an hour, more than 256 MB decoded or an implausible sample rate.
    """
    if too_large := why_too_large(path.stat().st_size):
        raise ValueError(f"{path}: {too_large}")
    return decode_bytes(path.read_bytes(), source=str(path))


def decode_bytes(content: bytes, *, source: str) -> tuple[Samples, int]:
    """Decode a sound file's bytes as `decode` does; `source` names it in errors.

    Raises:
        ValueError: as `decode` does.
    """
    try:
        samples, sample_rate = _decode(content)
        _check_samples(samples)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{source}: not readable as sound ({_reason(error)})") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return samples, sample_rate


def _decode(content: bytes) -> tuple[Samples, int]:
    if not content:
        raise ValueError("empty, a file of 0 bytes")
    is_ogg = content.startswith(_PAGE)
    if is_ogg:
        _check_pages(content)
    try:
        file = soundfile.SoundFile(io.BytesIO(content))
    except soundfile.SoundFileError as error:
        if not is_ogg:
            raise
        return _decode_by_ffmpeg(content, _reason(error))  # such as FLAC in Ogg, or sound beside a picture
    with file:
        _check_header(file)
        if file.format == "FLAC" and file.frames >= 2**62:  # its header leaves the length open
            return _decode_by_ffmpeg(content, "its header leaves the length open")
        _check_length(file.frames, file.channels, file.samplerate)
        if _is_cut(file):
            raise ValueError(f"truncated, {file.frames} frames are there and its header promises more")
        samples = _samples_of(file, content)
        is_estimate = file.format == "MP3" and not _has_length(content)
        if not is_estimate:
            _check_count(len(samples), file.frames)
        return samples, int(file.samplerate)


def _check_header(file: soundfile.SoundFile) -> None:
    if file.format not in _CHECKED_FORMATS:
        raise ValueError(
            f"a {file.format} file, in which a cut leaves no trace; convert it to one of {', '.join(_CHECKED_FORMATS)}"
        )
    if not 0 < file.samplerate <= MAX_SAMPLE_RATE:
        raise ValueError(f"implausible sample rate, {file.samplerate} Hz; at most {MAX_SAMPLE_RATE} Hz are read")


def _is_cut(file: soundfile.SoundFile) -> bool:
    """Return whether the file ends before the length that its header states.

    libsndfile corrects the length without an error, and notes what it has corrected in a text.
    """
    notes = file.extra_info
    if found := re.search(r"does not match value from 'ds64' chunk of (\d+)", notes):
        return bool(file.frames < int(found[1]) < _STREAMED)
    sizes = re.findall(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", notes, re.MULTILINE)
    is_short = any(int(there) < int(stated) < _STREAMED for stated, there in sizes)
    return is_short or "Seems to be a truncated file" in notes


def _has_length(content: bytes) -> bool:
    """Return whether an MP3 file states its length in its first frame. Otherwise libsndfile estimates it."""
    start = 0
    if content.startswith(b"ID3"):
        start = 10 + functools.reduce(lambda size, byte: size << 7 | byte, content[6:10], 0)
    return any(tag in content[start : start + 2048] for tag in (b"Xing", b"Info", b"VBRI"))


def _samples_of(file: soundfile.SoundFile, content: bytes) -> Samples:
    """Return a file's samples, by the faster decoder where it applies and decodes all of them."""
    is_vorbis = (file.format, file.subtype) == ("OGG", "VORBIS")
    if is_vorbis and file.channels <= _MOST_CHANNELS:
        samples = decode_vorbis(content)
        if samples.shape == (file.frames, file.channels):
            return samples
    return np.asarray(file.read(dtype="float32", always_2d=True))


def _decode_by_ffmpeg(content: bytes, why: str) -> tuple[Samples, int]:
    """Decode the first sound of a file that libsndfile does not read; `why` is the reason.

    Raises:
        ValueError: FFmpeg does not read it either, or not to its end.
    """
    import av  # noqa: PLC0415  20 MB that reading clips from a cache does not need

    parts, n_samples = [], 0
    try:
        with av.open(io.BytesIO(content), mode="r") as file:
            stream = file.streams.audio[0]
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
            if stream.channels > _MOST_CHANNELS:
                raise ValueError(f"not readable as sound ({why}); with at most {_MOST_CHANNELS} channels it would be")
            planar = av.AudioResampler(format="fltp")
            for frame in file.decode(stream):
                if frame.time is not None and round(frame.time * stream.sample_rate) != n_samples:
                    raise ValueError(f"damaged, sound is missing after {n_samples} samples")
                parts += [part.to_ndarray() for part in planar.resample(frame)]
                n_samples += frame.samples
                _check_length(n_samples, stream.channels, stream.sample_rate)
            n_expected = n_samples
            if stream.duration is not None and stream.time_base is not None:
                n_expected = round(float(stream.duration * stream.time_base * stream.sample_rate))
            sample_rate = int(stream.sample_rate)
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"not readable as sound ({why}; {error})") from error
    _check_count(n_samples, n_expected)
    return (np.concatenate(parts, axis=1).T if parts else np.zeros((0, 1), np.float32)), sample_rate


def why_too_large(n_bytes: int) -> str:
    """Return why a file of this size is not read into memory, or ""."""
    if n_bytes <= _MOST_BYTES:
        return ""
    return (
        f"too large for a clip, a file of {n_bytes / 1e6:,.0f} MB; at most {_MOST_BYTES // 10**6} MB are read: cut "
        "recordings into clips"
    )


def _check_length(n_samples: int, n_channels: int, sample_rate: int) -> None:
    """Refuse a length, as a header states it, that would fill the memory when it is decoded or resampled."""
    n_bytes, seconds = 4 * n_samples * n_channels, n_samples / sample_rate
    if n_bytes > _MOST_BYTES or seconds > _MOST_SECONDS:
        raise ValueError(
            f"too long for a clip, {seconds / 60:,.1f} min and {n_bytes / 1e6:,.0f} MB decoded, unless its header is "
            f"damaged; at most {_MOST_SECONDS // 60} min and {_MOST_BYTES // 10**6} MB are read: cut recordings into "
            "clips"
        )


def _check_count(n_decoded: int, n_stated: int) -> None:
    if n_decoded != n_stated:
        raise ValueError(f"damaged, {n_decoded} of its {n_stated} samples can be decoded")


def _check_samples(samples: Samples) -> None:
    if len(samples) == 0:
        raise ValueError("holds no samples")
    # NaN is both the minimum and the maximum; a look at each sample takes three times as long
    if not (np.isfinite(samples.min()) and np.isfinite(samples.max())):
        row = int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise ValueError(f"sample {row} is {samples[row].tolist()}; samples must be finite")


def _reason(error: soundfile.SoundFileError) -> str:
    """Return libsndfile's message without the name of our stream."""
    return str(getattr(error, "error_string", error)).rstrip(".")


_PAGE, HEADER_BYTES, _CHECKSUM = b"OggS", 27, slice(22, 26)
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Page:
    """An Ogg page's place in its file and the fields of its header; `number` is its place in its stream."""

    start: int
    end: int
    is_first: bool
    is_last: bool
    stream: bytes
    number: int


def pages_of(content: bytes) -> Iterator[Page]:
    """Yield the pages of an Ogg file as long as another one follows."""
    start = 0
    while content.startswith(_PAGE, start) and len(header := content[start : start + HEADER_BYTES]) == HEADER_BYTES:
        body = start + HEADER_BYTES + header[26]
        end = body + sum(content[start + HEADER_BYTES : body])
        number = int.from_bytes(header[18:22], "little")
        yield Page(start, end, bool(header[5] & 2), bool(header[5] & 4), header[14:18], number)
        start = end


def checksum(page: bytes) -> bytes:
    """Return the checksum of an Ogg page, computed with zeros in the checksum's place.

    It has zlib's polynomial, with the bits of each byte mirrored and 0 where zlib has all ones.
    """
    zeroed = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(zeroed.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "little").translate(_MIRRORED)[::-1]


def _check_pages(content: bytes) -> None:
    """Refuse an Ogg file that is not one whole recording, with all its pages undamaged and in order.

    Decoders raise no error for any of this. They return a shorter clip if the file is cut or its first or last page of
    sound is damaged, and the first of several recordings. For a page that is lost, repeated or out of place FFmpeg
    invents the right number of samples.
    """
    numbers: dict[bytes, int] = {}
    last, end = None, 0
    for page in pages_of(content):
        where = f"the Ogg page at byte {page.start} of its {len(content)}"
        number = numbers.get(page.stream, page.number)
        if page.end > len(content):
            break
        whole = content[page.start : page.end]
        if checksum(whole) != whole[_CHECKSUM]:
            raise ValueError(f"damaged, {where} fails its checksum")
        if page.is_first and last is not None and not last.is_first:
            raise ValueError(f"several recordings one after another, the next from byte {page.start}; a clip is one")
        if page.number != number:
            raise ValueError(f"damaged, {where} is number {page.number} of its stream, where number {number} should be")
        numbers[page.stream] = page.number + 1
        last, end = page, page.end
    another_begins = content.startswith(_PAGE, end)
    if last is not None and last.is_last and not another_begins:
        return  # bytes that may follow belong to no recording
    if another_begins or end + HEADER_BYTES > len(content):
        raise ValueError(f"truncated, its {len(content)} bytes end before the last Ogg page does")
    raise ValueError(f"damaged, no Ogg page begins at byte {end} of its {len(content)}, where the next one should")


_SAMPLES_AT_A_TIME = "16384"


_MOST_CHANNELS = 2
"""From three on FFmpeg has the channels in an order of its own, and PyAV 18 reads past the last one of eight."""


def decode_vorbis(content: bytes) -> Float32[np.ndarray, "sample channel"]:
    """Return the samples of an Ogg Vorbis file of one or two channels, within 1e-6 of libvorbis's.

    A damaged file gives fewer samples, or none.

    One call into FFmpeg decodes 16,384 samples instead of a packet's 1,024. A call for each packet takes half as long
    again, and threads would wait for each other's Python.
    """
    import av  # noqa: PLC0415  20 MB that reading clips from a cache does not need

    parts: list[np.ndarray] = []
    with contextlib.suppress(av.error.FFmpegError):  # raised at the end of all that can be decoded
        graph = av.filter.Graph()
        graph.threads = 1
        # an address with the content needs no second reading, and no file name without FFmpeg's special characters
        address = f"data:audio/ogg;base64,{base64.b64encode(content).decode()}"
        source = graph.add("amovie", filename=address, format_name="ogg", stream_index="0")
        gathered, sink = graph.add("asetnsamples", n=_SAMPLES_AT_A_TIME, p="0"), graph.add("abuffersink")
        graph.link_nodes(source, gathered, sink)
        while True:
            parts.append(cast(av.AudioFrame, sink.pull()).to_ndarray())  # (channel, sample)
    return np.concatenate(parts, axis=1).T if parts else np.zeros((0, 0), np.float32)


def mixes_to_silence(samples: Float[np.ndarray, "sample channel"]) -> bool:
    """Return whether nothing is audible in the mean over channels: no sample reaches -80 dB of full scale.

    All samples may be zero, or the channels may cancel, as in stereo with one channel inverted.
    """
    total = functools.reduce(np.add, samples.T)  # ten times as fast as the mean over a short axis
    return bool(max(total.max(initial=0), -total.min(initial=0)) < AUDIBLE * samples.shape[1])


def why_unopened(path: Path, error: OSError) -> str:
    """Return why a file could not be opened, without its name."""
    return error.strerror or str(error).removeprefix(f"{path}: ")
