"""Random music: a song (tempo, key, chords) and one part for each voice that plays in it.

    piece = compose(np.random.default_rng(0), [Voice(0, 36, 88, ("chords",)), Voice(32, 28, 55, ("bass",))])

Times inside a role are in beats from the song's start; in a `Piece` they are in seconds from the clip's
start. A clip begins anywhere in its song's first bar and ends where it ends, as an excerpt does. The same
generator state gives the same piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.data.general_midi import PERCUSSION
from harness.data.roles import ROLES, Event, Song, Voice

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))
_PROGRESSIONS = (
    (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (1, 4, 0, 0),
    (0, 0, 3, 4), (5, 3, 0, 4), (0, 2, 3, 4), (0, 6, 5, 4),
)  # fmt: skip
_KITS = (0, 0, 8, 16, 24, 25, 32, 40)  # standard, room, power, electronic, analogue, jazz, brush


@dataclass(frozen=True)
class Note:
    """One note: seconds from the clip's start, MIDI pitch, velocity 1 to 127."""

    start: float
    seconds: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """What one channel plays; level, pan and reverb are MIDI controller values, 0 to 127."""

    program: int
    notes: tuple[Note, ...]
    level: int
    pan: int
    reverb: int
    detune_cents: float = 0.0


@dataclass(frozen=True)
class Piece:
    """The parts of one clip, its length in seconds, and its drum kit (the percussion channel's program)."""

    parts: tuple[Part, ...]
    seconds: float
    kit: int = 0


def compose(rng: np.random.Generator, voices: Sequence[Voice], *, seconds: float = 10.0) -> Piece:
    """Compose `seconds` of music in which every voice is heard."""
    song = _draw_song(rng, seconds)
    parts = [part for voice in voices for part in _play(rng, song, voice, seconds)]
    return Piece(tuple(parts), seconds, kit=_KITS[rng.integers(len(_KITS))])


def _draw_song(rng: np.random.Generator, seconds: float) -> Song:
    beat_seconds = 60.0 / rng.uniform(66, 168)
    beats_per_bar = int(rng.choice((4, 4, 4, 3)))
    offset = rng.uniform(0, beats_per_bar)
    return Song(
        beat_seconds=beat_seconds,
        beats_per_bar=beats_per_bar,
        n_beats=int(np.ceil(seconds / beat_seconds + offset)),
        tonic=int(rng.integers(0, 12)),
        scale=_SCALES[rng.integers(len(_SCALES))],
        chords=_PROGRESSIONS[rng.integers(len(_PROGRESSIONS))],
        swing=float(rng.choice((0.0, 0.0, 0.0, 0.12))),
        offset=offset,
    )


def _play(rng: np.random.Generator, song: Song, voice: Voice, seconds: float) -> list[Part]:
    """Compose one voice; a role that happens to rest through the whole clip is composed again."""
    role = ROLES[voice.roles[rng.integers(len(voice.roles))]]
    notes: tuple[Note, ...] = ()
    while sum(note.seconds for note in notes) < (0 if voice.program == PERCUSSION else 0.5) or not notes:
        notes = _perform(rng, song, role(rng, song, voice), seconds)
    level, pan, reverb = (int(rng.integers(*span)) for span in ((62, 122), (24, 105), (10, 90)))
    spread = rng.uniform(4, 9)  # cents
    detunes = (0.0,) if voice.courses == 1 else (-spread, spread)
    return [Part(voice.program, notes, level, pan, reverb, detune) for detune in detunes]


def _perform(rng: np.random.Generator, song: Song, events: Sequence[Event], seconds: float) -> tuple[Note, ...]:
    """Turn beats into seconds, humanise timing and velocity, and cut to the clip."""
    articulation = rng.choice((0.45, 0.8, 0.95, 1.02))
    loudness, dynamics = rng.uniform(58, 108), rng.uniform(3, 10)
    notes = []
    for beat, length, pitch, accent in events:
        swung = beat + song.swing if round(beat % 1, 3) == 0.5 else beat
        start = (swung - song.offset) * song.beat_seconds + rng.normal(0, 0.006)
        end = min(start + max(0.05, length * song.beat_seconds * articulation), seconds)
        start = max(start, 0.0)
        velocity = int(np.clip(loudness * accent + rng.normal(0, dynamics), 20, 127))
        if end - start > 0.03:
            notes.append(Note(start, end - start, pitch, velocity))
    return tuple(notes)
