"""Sound files that several tests of features share."""

import io
from pathlib import Path

import midirenderer
import pretty_midi
import pytest
import soundfile
import soxr

from tests.support.layouts import write_tone


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """Ten seconds of piano, strings and drums as an Ogg file in 44.1 kHz stereo."""
    score = pretty_midi.PrettyMIDI()
    for program, is_drum, pitches in ((0, False, (60, 64, 67)), (48, False, (36, 43)), (0, True, (36, 42))):
        part = pretty_midi.Instrument(program, is_drum=is_drum)
        part.notes = [pretty_midi.Note(90, pitches[i % len(pitches)], i / 2, i / 2 + 0.6) for i in range(20)]
        score.instruments.append(part)
    midi = io.BytesIO()
    score.write(midi)
    soundfont = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2").read_bytes()
    wave = io.BytesIO(midirenderer.render_wave_from(soundfont, midi.getvalue()))
    samples, sample_rate = soundfile.read(wave, dtype="float32", always_2d=True)
    path = tmp_path_factory.mktemp("music") / "music.ogg"
    stereo = soxr.resample(samples, sample_rate, 44100)[:441_000]
    soundfile.write(path, stereo, 44100, format="OGG", subtype="VORBIS")
    return path


@pytest.fixture(scope="session")
def like_openmic(music):
    """Return two seconds of it as the public sample clip of OpenMIC-2018 is stored: mono at 22,050 Hz.

    That clip itself is under CC BY-NC-ND, so it is not part of this project.
    """
    stereo, _ = soundfile.read(music, dtype="float32", always_2d=True)
    path = music.with_name("000046_3840.ogg")
    mono = soxr.resample(stereo.mean(axis=1), 44100, 22050)[: 2 * 22050]
    soundfile.write(path, mono, 22050, format="OGG", subtype="VORBIS")
    return path


@pytest.fixture
def tone(tmp_path):
    write_tone(tmp_path / "tone.ogg", seconds=2)
    return tmp_path / "tone.ogg"
