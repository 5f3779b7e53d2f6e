"""Random music: what a piece promises, in notes and in sound."""

import io
from itertools import pairwise

import numpy as np
import pretty_midi
import pytest

from harness.synthetic.demo import default_soundfont
from harness.synthetic.general_midi import PERCUSSION, PROGRAMS, TAGS
from harness.synthetic.music import ROLES, Note, Part, Piece, Voice, compose
from harness.synthetic.render import SAMPLE_RATE, midi_file, render

PIANO = Voice(0, 48, 72, ("chords",))
DRUMS = Voice(PERCUSSION, 0, 127, ("kit",))


def piece_of(*voices, seed=0, seconds=10.0):
    return compose(np.random.default_rng(seed), voices, seconds=seconds)


def voice_for(role):
    is_percussion = role in {"drums", "cymbals", "kit", "hand"}
    return Voice(PERCUSSION if is_percussion else 0, 48, 72, (role,))


def test_there_is_one_tag_for_each_program_and_one_for_percussion():
    assert len(PROGRAMS) == 128
    assert len(set(TAGS)) == 129
    assert [program.number for program in PROGRAMS] == list(range(128))


def test_every_program_has_a_register_and_roles_that_exist():
    for program in PROGRAMS:
        assert 0 <= program.low <= program.high - 12 <= 127 - 12
        assert program.roles
        assert set(program.roles) <= set(ROLES)


def test_the_same_seed_composes_the_same_piece_and_another_seed_another():
    assert piece_of(PIANO, DRUMS, seed=1) == piece_of(PIANO, DRUMS, seed=1)
    assert piece_of(PIANO, DRUMS, seed=1) != piece_of(PIANO, DRUMS, seed=2)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_plays_within_the_clip_at_lawful_velocities(role):
    for seed in range(30):
        notes = [note for part in piece_of(voice_for(role), seed=seed).parts for note in part.notes]
        assert notes
        assert all(note.start >= 0 and note.start + note.seconds <= 10.0 + 1e-9 for note in notes)
        assert all(1 <= note.velocity <= 127 and note.seconds > 0 for note in notes)


@pytest.mark.parametrize(("low", "high"), [(48, 72), (60, 66)])
@pytest.mark.parametrize("role", [role for role in ROLES if voice_for(role).program != PERCUSSION])
def test_every_melodic_role_stays_in_its_voice_s_register(role, low, high):
    for seed in range(30):
        piece = piece_of(Voice(0, low, high, (role,)), seed=seed)
        pitches = {note.pitch for part in piece.parts for note in part.notes}
        assert pitches <= set(range(low, high + 1))


def test_cymbals_and_drums_share_no_percussion_key():
    def keys(role):
        pieces = [piece_of(voice_for(role), seed=seed) for seed in range(50)]
        return {note.pitch for piece in pieces for note in piece.parts[0].notes}

    assert keys("drums").isdisjoint(keys("cymbals"))
    assert keys("kit") <= keys("drums") | keys("cymbals")


def test_a_tremolo_repeats_its_notes_nine_to_fourteen_times_a_second():
    (part,) = piece_of(voice_for("tremolo")).parts
    gaps = [b.start - a.start for a, b in pairwise(part.notes) if a.pitch == b.pitch]
    assert 1 / 15 < np.median(gaps) < 1 / 8


def test_two_courses_play_the_same_notes_a_few_cents_apart():
    first, second = piece_of(Voice(25, 60, 84, ("melody",), courses=2)).parts
    assert first.notes == second.notes
    assert first.detune_cents == -second.detune_cents
    assert 4 <= second.detune_cents <= 9


def test_an_independent_reader_finds_in_the_midi_file_what_was_composed():
    piece = piece_of(PIANO, Voice(32, 28, 55, ("bass",)), DRUMS)
    midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_file([piece])))
    for part in piece.parts:
        (instrument,) = [
            read
            for read in midi.instruments
            if (read.is_drum if part.program == PERCUSSION else not read.is_drum and read.program == part.program)
        ]
        composed = sorted((note.pitch, note.start) for note in part.notes)
        read = sorted((note.pitch, note.start) for note in instrument.notes)
        np.testing.assert_allclose(read, composed, atol=2e-3)


def test_each_piece_of_a_rendering_sounds_for_its_own_time_only():
    too_long = Note(0.0, 5.0, 69, 100)
    loud = Piece((Part(19, (too_long,), 100, 64, 40),), 1.0)
    silent = Piece((), 1.0)
    rendered = render(default_soundfont(), [loud, silent, loud])
    assert [len(sound) for sound in rendered] == [SAMPLE_RATE] * 3
    peaks = [np.abs(sound).max() for sound in rendered]
    assert peaks[0] > 0.01
    assert peaks[1] < 0.01 * peaks[0]
    assert peaks[2] == pytest.approx(peaks[0], rel=0.1)


def test_a_rendered_a_is_heard_at_440_hz():
    (sound,) = render(default_soundfont(), [Piece((Part(73, (Note(0.0, 1.9, 69, 100),), 100, 64, 0),), 2.0)])
    spectrum = np.abs(np.fft.rfft(sound[SAMPLE_RATE // 2 : SAMPLE_RATE * 3 // 2]))
    assert spectrum[400:480].argmax() + 400 == pytest.approx(440, abs=3)
