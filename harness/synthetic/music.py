"""Random music for given instruments: songs, roles and notes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from harness.synthetic.general_midi import PERCUSSION

_TRIAD, _SEVENTH = (0, 2, 4), (0, 2, 4, 6)

# How one beat may be divided: the onsets, as fractions of the beat.
_DIVISIONS: tuple[tuple[float, ...], ...] = (
    (0.0,), (0.0,), (0.0, 0.5), (0.0, 0.75), (0.0, 0.25, 0.5, 0.75), (0.5,), (),
)  # fmt: skip

_KICK, _SNARE, _SIDE_STICK, _CLAP = 36, 38, 37, 39
_TOMS = (41, 43, 45, 47, 48, 50)
_CLOSED_HAT, _OPEN_HAT, _RIDE, _RIDE_BELL, _SPLASH, _CHINA = 42, 46, 51, 53, 55, 52
_CRASHES = (49, 57)
_HAND = (54, 56, 60, 61, 62, 63, 64, 69, 70, 75, 76, 77, 67, 68)


@dataclass(frozen=True)
class Voice:
    """One player: a program (or `PERCUSSION`), its register, its possible roles, and its courses of strings.

    `courses` of 2 doubles every string, a few cents apart, as on a mandolin.
    """

    program: int
    low: int
    high: int
    roles: tuple[str, ...]
    courses: int = 1


@dataclass(frozen=True)
class Song:
    """The frame that all parts share. `chords`: a scale degree for each bar; `offset`: beats cut off the front."""

    beat_seconds: float
    beats_per_bar: int
    n_beats: int
    tonic: int
    scale: tuple[int, ...]
    chords: tuple[int, ...]
    swing: float
    offset: float

    def pitch(self, degree: int) -> int:
        """Return the MIDI pitch of a scale degree, degree 0 being the tonic below middle C."""
        octave, step = divmod(degree, len(self.scale))
        return 48 + self.tonic + 12 * octave + self.scale[step]

    def chord(self, beat: float) -> int:
        """Return the degree of the chord that sounds at a beat."""
        return self.chords[int(beat // self.beats_per_bar) % len(self.chords)]


Event = tuple[float, float, int, float]

Role = Callable[[np.random.Generator, Song, Voice], list[Event]]


def _fold(pitch: int, low: int, high: int) -> int:
    """Move a pitch by octaves into a register (at least an octave wide, or the nearest pitch in it)."""
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return max(pitch, low)


def _tessitura(rng: np.random.Generator, voice: Voice, width: int) -> tuple[int, int]:
    """Return a band of `width` semitones inside the voice's register, nearer its middle than its ends."""
    room = max(0, voice.high - voice.low - width)
    low = voice.low + round(room * rng.beta(2, 2))
    return low, min(voice.high, low + width)


def _melody(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    low, high = _tessitura(rng, voice, 17)
    bars = [[_DIVISIONS[i] for i in rng.integers(0, len(_DIVISIONS), song.beats_per_bar)] for _ in range(2)]
    pace = int(rng.choice((1, 1, 2)))  # a slow melody holds each beat of the rhythm for two
    onsets = [
        pace * (b + o) for b in range(song.n_beats) for o in bars[b // song.beats_per_bar % 2][b % song.beats_per_bar]
    ]
    degree, events = int(rng.integers(0, 7)), []
    for here, following in pairwise([*onsets, float(pace * song.n_beats)]):
        degree += int(rng.choice((-2, -1, -1, 0, 1, 1, 2, 4)))
        if here % song.beats_per_bar == 0:
            degree = song.chord(here) + int(rng.choice(_TRIAD))
        if rng.random() > 0.08:
            pitch = _fold(song.pitch(degree), low, high)
            events.append((here, min(following - here, 2.0 * pace), pitch, 1.0 if here % 1 else 1.08))
    return events


def _voicing(rng: np.random.Generator, song: Song, beat: float, band: tuple[int, int]) -> list[int]:
    tones = _SEVENTH if rng.random() < 0.25 else _TRIAD
    return sorted({_fold(song.pitch(song.chord(beat) + tone), *band) for tone in tones})


def _chords(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    band = _tessitura(rng, voice, 14)
    pattern = ((0.0,), (0.0, 2.0), (0.0, 1.0, 2.0, 3.0), (0.5, 1.5, 2.5, 3.5), (0.0, 1.5, 3.0))[rng.integers(5)]
    events = []
    for bar in range(0, song.n_beats, song.beats_per_bar):
        onsets = [onset for onset in pattern if onset < song.beats_per_bar]
        ends = [*onsets[1:], float(song.beats_per_bar)]
        pitches = _voicing(rng, song, bar, band)
        events += [(bar + o, e - o, p, 1.0) for o, e in zip(onsets, ends, strict=True) for p in pitches]
    return events


def _pad(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    band = _tessitura(rng, voice, 14)
    bars = range(0, song.n_beats, song.beats_per_bar)
    keep = int(rng.integers(1, 4))
    return [(b, song.beats_per_bar, p, 1.0) for b in bars for p in _voicing(rng, song, b, band)[:keep]]


def _arpeggio(rng: np.random.Generator, song: Song, voice: Voice, *, step: float | None = None) -> list[Event]:
    band = _tessitura(rng, voice, 19)
    step = float(rng.choice((0.25, 0.5, 0.5, 1.0))) if step is None else step
    order = rng.permutation(4) if rng.random() < 0.5 else np.arange(4)
    events = []
    for i in range(int(song.n_beats / step)):
        beat = i * step
        tone = (*_TRIAD, 7)[order[i % 4]]
        ring = step * float(1 + rng.integers(0, 2))
        events.append((beat, ring, _fold(song.pitch(song.chord(beat) + tone), *band), 1.1 if i % 4 == 0 else 0.95))
    return events


def _strum(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    band = _tessitura(rng, voice, 21)
    onsets = ((0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 1.5, 2.5, 3.0, 3.5), (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5))[
        rng.integers(3)
    ]
    lag = rng.uniform(0.008, 0.03) / song.beat_seconds  # between strings
    events = []
    for bar in range(0, song.n_beats, song.beats_per_bar):
        strings = _voicing(rng, song, bar, band)
        strings = strings + [p + 12 for p in strings if p + 12 <= band[1]]
        for stroke, onset in enumerate(o for o in onsets if o < song.beats_per_bar):
            course = strings if stroke % 2 == 0 else strings[::-1]
            events += [(bar + onset + lag * i, 0.9, p, 1.05 - 0.15 * (stroke % 2)) for i, p in enumerate(course)]
    return events


def _tremolo(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    period = 1 / (rng.uniform(9, 14) * song.beat_seconds)  # 9 to 14 strokes a second
    return [
        (beat + period * i, period * 1.5, pitch, accent * (1.0 if i % 2 == 0 else 0.88))
        for beat, length, pitch, accent in _melody(rng, song, voice)
        for i in range(max(1, int(length / period)))
    ]


def _bass(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    step = float(rng.choice((0.5, 1.0, 1.0, 2.0)))
    steps = ((0,), (0, 4), (0, 2, 4, 5), (0, 0, 7, 0))[rng.integers(4)]
    beats = [i * step for i in range(int(song.n_beats / step))]
    low, high = voice.low, min(voice.high, voice.low + 19)
    return [
        (beat, step, _fold(song.pitch(song.chord(beat) + steps[i % len(steps)]) - 24, low, high), 1.0)
        for i, beat in enumerate(beats)
        if rng.random() > 0.06
    ]


def _hits(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    beats = np.flatnonzero(rng.random(2 * song.n_beats) < rng.uniform(0.12, 0.4)) / 2
    band = _tessitura(rng, voice, 16)
    return [
        (float(beat), float(rng.choice((0.5, 1.0, 3.0))), int(rng.integers(band[0], band[1] + 1)), 1.0)
        for beat in beats
    ]


def _pattern(rng: np.random.Generator, song: Song, odds: dict[int, Sequence[float]]) -> list[Event]:
    """Loop one bar of sixteenths; `odds` holds, for each percussion key, the chances of a stroke on each."""
    steps = 4 * song.beats_per_bar
    bar = {key: rng.random(steps) < np.resize(chances, steps) for key, chances in odds.items()}
    return [
        (beat + s / 4, 0.25, key, 1.08 if s % 4 == 0 else 0.88)
        for beat in range(0, song.n_beats, song.beats_per_bar)
        for key, strokes in bar.items()
        for s in np.flatnonzero(strokes).tolist()
        if rng.random() > 0.04
    ]


def _drums(rng: np.random.Generator, song: Song, _voice: Voice) -> list[Event]:
    kick = (0.95, 0.0, 0.2, 0.15, 0.2, 0.0, 0.3, 0.1, 0.7, 0.0, 0.3, 0.1, 0.2, 0.0, 0.3, 0.1)
    snare = int(rng.choice((_SNARE, _SNARE, 40, _SIDE_STICK, _CLAP)))
    odds: dict[int, Sequence[float]] = {_KICK: kick, snare: (0.0, 0.05, 0.0, 0.1, 0.95, 0.0, 0.05, 0.15)}
    for tom in rng.choice(_TOMS, int(rng.integers(0, 4)), replace=False).tolist():
        odds[tom] = (0.05, 0.02, 0.15, 0.1)
    return _pattern(rng, song, odds)


def _cymbals(rng: np.random.Generator, song: Song, _voice: Voice) -> list[Event]:
    timekeeper = int(rng.choice((_CLOSED_HAT, _CLOSED_HAT, _RIDE, _RIDE_BELL, _OPEN_HAT)))
    density = ((0.95, 0.0), (0.95, 0.0, 0.9, 0.0), (0.95, 0.6, 0.9, 0.6))[rng.integers(3)]
    events = _pattern(rng, song, {timekeeper: density})
    crash = int(rng.choice((*_CRASHES, _SPLASH, _CHINA)))
    return events + [(beat, 4.0, crash, 1.1) for beat in range(0, song.n_beats, 2 * song.beats_per_bar)]


def _kit(rng: np.random.Generator, song: Song, voice: Voice) -> list[Event]:
    return _drums(rng, song, voice) + _cymbals(rng, song, voice)


def _hand(rng: np.random.Generator, song: Song, _voice: Voice) -> list[Event]:
    keys = rng.choice(_HAND, int(rng.integers(1, 4)), replace=False).tolist()
    return _pattern(rng, song, {key: rng.uniform(0.1, 0.8, 8).tolist() for key in keys})


ROLES: dict[str, Role] = {
    "melody": _melody, "chords": _chords, "pad": _pad, "arpeggio": _arpeggio, "strum": _strum, "tremolo": _tremolo,
    "roll": partial(_arpeggio, step=0.25),  # the banjo's: even sixteenths without a gap
    "bass": _bass, "hits": _hits, "drums": _drums, "cymbals": _cymbals, "kit": _kit, "hand": _hand,
}  # fmt: skip
"""The roles that a voice can take, by name."""
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
    """The notes of one channel; level, pan and reverb are MIDI controller values, 0 to 127."""

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
    """Compose `seconds` of music in which every voice sounds."""
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
