"""Render composed pieces: a Standard MIDI File in memory, played with a SoundFont.

Samples are mono float32 at 48 kHz (`SAMPLE_RATE`), exactly `piece.seconds` of each piece. One call renders
several pieces in turn, since each call parses the whole SoundFont. The same pieces in the same order give the
same samples. A piece after others differs slightly from the piece alone: chorus and reverberation run on.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import midirenderer
import numpy as np
from jaxtyping import Float

from harness.synthetic.general_midi import PERCUSSION
from harness.synthetic.music import Part, Piece

SAMPLE_RATE = 48_000
_GAP_SECONDS = 1.0  # lets the reverberation of one piece die before the next
_TAIL_SECONDS = 0.02  # the synthesiser works in blocks and drops an unfinished one
_TICKS_PER_SECOND = 1000
_PERCUSSION_CHANNEL = 9
_MELODIC_CHANNELS = tuple(channel for channel in range(16) if channel != _PERCUSSION_CHANNEL)
_PROGRAM, _PAN, _LEVEL, _REVERB, _ALL_SOUND_OFF = 0xC0, 10, 7, 91, 120
_BEND_RANGE_CENTS = 200.0  # of the General MIDI default, two semitones
_WAVE_HEADER_BYTES = 44

_Message = tuple[int, bytes]  # tick, MIDI bytes

T = TypeVar("T")
R = TypeVar("R")


def render(soundfont: bytes, pieces: Sequence[Piece]) -> list[Float[np.ndarray, " sample"]]:
    """Render each piece to mono samples in [-1, 1].

    Raises:
        ValueError: the SoundFont is damaged.
    """
    mono = _read_wave(midirenderer.render_wave_from(soundfont, midi_file(pieces)))
    return [_cut(mono, start, piece.seconds) for start, piece in zip(_starts(pieces), pieces, strict=True)]


def midi_file(pieces: Sequence[Piece]) -> bytes:
    """Return a Standard MIDI File (format 0, one tick a millisecond) that plays the pieces in turn.

    pretty_midi writes the same file in ten times the time, 7 ms a clip.
    """
    messages: list[_Message] = []
    for start, piece in zip(_starts(pieces), pieces, strict=True):
        messages += _piece_messages(piece, start)
    end = max((tick for tick, _ in messages), default=0)
    messages.append((end + _tick(_TAIL_SECONDS), bytes((0xFF, 0x2F, 0x00))))
    tempo = bytes((0x00, 0xFF, 0x51, 0x03)) + (1_000_000).to_bytes(3, "big")  # a quarter note is a second
    track = tempo + b"".join(_delta_coded(messages))
    return struct.pack(">4sI3H4sI", b"MThd", 6, 0, 1, _TICKS_PER_SECOND, b"MTrk", len(track)) + track


def map_in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int,
    at_once: int = 1,
    initializer: Callable[[], object] | None = None,
) -> Iterator[R]:
    """Yield `function` of each item, in order. The synthesiser holds Python's lock, so threads do not help.

    Processes are spawned and take `at_once` items at a time. A single worker is this process.
    """
    if workers == 1 or not items:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=initializer) as pool:
        yield from pool.map(function, items, chunksize=at_once)


def _read_wave(wave: bytes) -> Float[np.ndarray, " sample"]:
    """Return the mean of both channels. This takes a twentieth of the time that libsndfile takes."""
    is_expected = wave[20:24] == b"\1\0\2\0" and int.from_bytes(wave[24:28], "little") == SAMPLE_RATE
    assert is_expected, f"midirenderer did not render 16-bit stereo at {SAMPLE_RATE} Hz"
    samples = np.frombuffer(wave, "<i2", offset=_WAVE_HEADER_BYTES).astype(np.float32)
    return (samples[::2] + samples[1::2]) / 65536


def _starts(pieces: Sequence[Piece]) -> list[float]:
    lengths = [piece.seconds + _GAP_SECONDS for piece in pieces]
    return [sum(lengths[:i]) for i in range(len(pieces))]


def _cut(mono: Float[np.ndarray, " sample"], start: float, seconds: float) -> Float[np.ndarray, " sample"]:
    first, length = round(start * SAMPLE_RATE), round(seconds * SAMPLE_RATE)
    cut = mono[first : first + length]
    return np.pad(cut, (0, length - len(cut)))


def _piece_messages(piece: Piece, start: float) -> list[_Message]:
    melodic = [part for part in piece.parts if part.program != PERCUSSION]
    assert len(melodic) <= len(_MELODIC_CHANNELS)  # 4 voices of at most 2 courses
    messages = [(_tick(start), bytes((_PROGRAM | _PERCUSSION_CHANNEL, piece.kit)))]
    for channel, part in zip(_MELODIC_CHANNELS, melodic, strict=False):
        messages += _settings(part, channel, start) + _notes(part, channel, start, gain=1.0)
    for part in piece.parts:
        if part.program == PERCUSSION:  # all percussion shares one channel, so its level goes into the velocities
            messages += _notes(part, _PERCUSSION_CHANNEL, start, gain=part.level / 127)
    end = _tick(start + piece.seconds)
    return messages + [(end, bytes((0xB0 | channel, _ALL_SOUND_OFF, 0))) for channel in range(16)]


def _settings(part: Part, channel: int, start: float) -> list[_Message]:
    bend = round(8192 * (1 + part.detune_cents / _BEND_RANGE_CENTS))
    messages = [bytes((_PROGRAM | channel, part.program)), bytes((0xE0 | channel, bend & 0x7F, bend >> 7))]
    controls = ((_LEVEL, part.level), (_PAN, part.pan), (_REVERB, part.reverb))
    messages += [bytes((0xB0 | channel, control, value)) for control, value in controls]
    return [(_tick(start), message) for message in messages]


def _notes(part: Part, channel: int, start: float, *, gain: float) -> list[_Message]:
    messages = []
    for note in part.notes:
        on, off = _tick(start + note.start), _tick(start + note.start + note.seconds)
        velocity = max(1, round(gain * note.velocity))
        messages.append((on, bytes((0x90 | channel, note.pitch, velocity))))
        messages.append((max(off, on + 1), bytes((0x80 | channel, note.pitch, 0))))
    return messages


def _tick(seconds: float) -> int:
    return round(seconds * _TICKS_PER_SECOND)


def _delta_coded(messages: Sequence[_Message]) -> Iterator[bytes]:
    now = 0
    for tick, message in sorted(messages, key=lambda entry: entry[0]):  # stable: settings stay before notes
        yield _variable_length(tick - now) + message
        now = tick


def _variable_length(value: int) -> bytes:
    """Code a number in base 128, most significant first, all but the last byte marked by their high bit."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))
