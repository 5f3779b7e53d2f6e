"""Log-mel as AST was trained on, from any sound file; what is no whole sound file is refused by name."""

import io
import os
from dataclasses import replace
from pathlib import Path

import midirenderer
import numpy as np
import pretty_midi
import pytest
import soundfile
import soxr
import torch
from torchaudio.compliance import kaldi

from harness.benchmarks.front_end import released_front_end
from harness.features import audio as frontend
from harness.features import audio as ogg
from harness.features.audio import FRONT_END_VERSION, decode, decode_bytes, decode_vorbis
from harness.features.log_mel import FrontEnd, log_mel
from tests.support.layouts import write_tone

SILENCE = float(np.log(np.finfo(np.float32).eps))  # -15.94
NANO = FrontEnd(window_ms=50, hop_ms=40, n_frames=256)


@pytest.fixture(scope="module")
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


@pytest.fixture
def like_openmic(music, tmp_path):
    """Return two seconds of it as the public sample clip of OpenMIC-2018 is stored: mono at 22,050 Hz.

    That clip itself is under CC BY-NC-ND, so it is not part of this project.
    """
    stereo, _ = soundfile.read(music, dtype="float32", always_2d=True)
    path = tmp_path / "000046_3840.ogg"
    mono = soxr.resample(stereo.mean(axis=1), 44100, 22050)[: 2 * 22050]
    soundfile.write(path, mono, 22050, format="OGG", subtype="VORBIS")
    return path


@pytest.fixture
def tone(tmp_path):
    write_tone(tmp_path / "tone.ogg", seconds=2)
    return tmp_path / "tone.ogg"


def noise(seconds, *, sample_rate=16000, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((round(seconds * sample_rate), channels))).astype(np.float32)


def test_log_mel_equals_the_ast_feature_extractor_on_music(music, like_openmic):
    """Set OPENMIC_SAMPLE to a clip of OpenMIC-2018 to hold it equal on that clip too."""
    from transformers import ASTFeatureExtractor

    for path in [music, like_openmic, *map(Path, filter(None, [os.environ.get("OPENMIC_SAMPLE")]))]:
        samples, sample_rate = decode(path)
        mono = soxr.resample(samples.mean(axis=1), sample_rate, 16000)
        reference = ASTFeatureExtractor(do_normalize=False)(mono, sampling_rate=16000, return_tensors="pt")
        ours = log_mel(samples, sample_rate, FrontEnd())
        difference = float((ours - reference.input_values[0]).abs().max())
        assert difference < 1e-4


def test_ten_seconds_fill_998_frames_and_the_rest_is_zero():
    mels = log_mel(noise(10), 16000, FrontEnd())
    assert (mels.shape, mels.dtype) == ((1024, 128), torch.float32)
    assert (mels[:998] != 0).any(dim=1).all()
    assert (mels[998:] == 0).all()


def test_a_coarser_front_end_hears_the_same_seconds_in_fewer_frames():
    mels = log_mel(noise(10), 16000, NANO)
    assert mels.shape == (256, 128)
    assert int((mels != 0).any(dim=1).sum()) == 249
    assert NANO.clip_samples / NANO.sample_rate == pytest.approx(10.25)


def test_silence_is_the_log_of_epsilon_and_fits_float16():
    mels = log_mel(np.zeros((160_000, 2), np.float32), 16000, FrontEnd())[:998]
    assert float(mels.min()) == float(mels.max()) == pytest.approx(SILENCE)
    assert mels.half().isfinite().all()


def test_a_short_clip_is_the_start_of_a_long_one_then_zeros():
    long = noise(10)
    short = log_mel(long[:32_000], 16000, FrontEnd())
    torch.testing.assert_close(short[:198], log_mel(long, 16000, FrontEnd())[:198])
    assert (short[198:] == 0).all()


def test_what_comes_after_the_last_frame_is_not_heard():
    long = noise(14)
    heard = log_mel(long, 16000, FrontEnd())
    long[FrontEnd().clip_samples :] = 0
    torch.testing.assert_close(heard, log_mel(long, 16000, FrontEnd()), rtol=0, atol=0)
    assert (heard != 0).any(dim=1).all()


@pytest.mark.parametrize("front_end", [FrontEnd(), NANO], ids=["ast", "nano"])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 399, 400, 401, 799, 801])
def test_a_clip_shorter_than_a_window_gives_one_frame(front_end, n_samples):
    mels = log_mel(np.full((n_samples, 1), 0.5, np.float32), 16000, front_end)
    n_frames = max(1, 1 + (n_samples - front_end.window_samples) // front_end.hop_samples)
    assert int((mels != 0).any(dim=1).sum()) == n_frames
    assert mels.isfinite().all()


@pytest.mark.parametrize("sample_rate", [8000, 44100, 192_000])
def test_a_single_sample_of_any_rate_is_heard(sample_rate):
    assert log_mel(np.full((1, 1), 0.5, np.float32), sample_rate, FrontEnd()).isfinite().all()


def test_channels_are_averaged():
    left, right = noise(1, seed=1), noise(1, seed=2)
    both = log_mel(np.hstack([left, right]), 16000, FrontEnd())
    torch.testing.assert_close(both, log_mel((left + right) / 2, 16000, FrontEnd()))
    opposite = log_mel(np.hstack([left, -left]), 16000, FrontEnd())
    assert float(opposite[:98].max()) == pytest.approx(SILENCE)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 96000])
def test_a_tone_is_heard_at_its_pitch_whatever_the_file(tmp_path, sample_rate, channels):
    write_tone(tmp_path / "a.ogg", hertz=1000, seconds=1, sample_rate=sample_rate, channels=channels)
    samples, decoded_rate = decode(tmp_path / "a.ogg")
    assert (samples.shape[1], decoded_rate) == (channels, sample_rate)
    mels = log_mel(samples, sample_rate, FrontEnd())
    assert int(mels[10:90].mean(dim=0).argmax()) == 43
    assert int((mels != 0).any(dim=1).sum()) == 98


@pytest.mark.parametrize("quality", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 96000])
def test_ogg_vorbis_is_decoded_as_libvorbis_does(tmp_path, sample_rate, channels, quality):
    path = tmp_path / "a b's %C3 é.ogg"
    sound = 0.3 * noise(1.2345, channels=channels, sample_rate=sample_rate)
    sound[len(sound) // 3 : len(sound) // 2] = 0
    soundfile.write(path, sound, sample_rate, format="OGG", subtype="VORBIS", compression_level=quality)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    found, found_rate = decode(path)
    assert found_rate == sample_rate
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_only_ogg_vorbis_goes_to_the_faster_decoder(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(
        frontend, "decode_vorbis", lambda content: called.append(len(content)) or decode_vorbis(content)
    )
    soundfile.write(tmp_path / "a.ogg", noise(1), 16_000, format="OGG", subtype="VORBIS")
    decode(tmp_path / "a.ogg")
    assert called == [(tmp_path / "a.ogg").stat().st_size]
    for name, sound_format, subtype in (("a", "OGG", "OPUS"), ("b", "FLAC", "PCM_16"), ("c", "WAV", "PCM_16")):
        soundfile.write(tmp_path / name, noise(1), 16_000, format=sound_format, subtype=subtype)
        decode(tmp_path / name)
    assert len(called) == 1


def test_what_the_faster_decoder_cannot_do_the_other_one_does(music, monkeypatch):
    expected = decode(music)[0]
    for given in (np.zeros((0, 0), np.float32), expected[:-1], expected[:, :1]):
        monkeypatch.setattr(frontend, "decode_vorbis", lambda _, given=given: given)
        np.testing.assert_allclose(decode(music)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("damage", ["nothing", "no Ogg", "a page of no stream", "no last half"])
def test_of_what_it_cannot_decode_the_faster_decoder_returns_what_it_can(music, damage):
    whole = music.read_bytes()
    content = {
        "nothing": b"",
        "no Ogg": b"<html>" * 100,
        "a page of no stream": whole[:28] + bytes(30) + whole[58:],
        "no last half": whole[: len(whole) // 2],
    }[damage]
    found = decode_vorbis(content)
    assert 0 < len(found) < 441_000 if damage == "no last half" else found.shape == (0, 0)


def test_resampling_keeps_the_level(music):
    samples, sample_rate = decode(music)
    ours = log_mel(samples, sample_rate, FrontEnd())
    twice = log_mel(soxr.resample(samples, sample_rate, 48000), 48000, FrontEnd())
    assert float((ours - twice)[:998, 10:100].abs().mean()) < 0.01


# How a clip may be heard before its log-mel is computed

VIA = replace(FrontEnd(), via_hz=22050)
NORMALISED = replace(FrontEnd(), is_peak_normalised=True)
AS_RELEASED = replace(VIA, is_peak_normalised=True, clip_seconds=10.0)


def resampled_log_mel(path):
    """Return AST's log-mel as torchaudio computes it."""
    samples, sample_rate = decode(path)
    mono = soxr.resample((samples[:, 0] + samples[:, 1]) / np.float32(2), sample_rate, 16000)
    options = {"window_type": "hanning", "htk_compat": True, "use_energy": False, "dither": 0.0}
    return kaldi.fbank(torch.from_numpy(mono)[None], num_mel_bins=128, **options)


def test_without_detour_and_normalisation_it_hears_what_kaldi_hears(music):
    ours = log_mel(*decode(music), FrontEnd())
    torch.testing.assert_close(ours[:998], resampled_log_mel(music), rtol=0, atol=5e-6)
    assert FRONT_END_VERSION == 5


@pytest.mark.parametrize("gain", [1e-4, 0.3, 2.0, 30.0])
@pytest.mark.parametrize("front_end", [NORMALISED, AS_RELEASED], ids=["normalised", "as released"])
def test_with_peak_normalisation_the_gain_of_a_clip_is_not_heard(music, gain, front_end):
    samples, sample_rate = decode(music)
    heard, louder = (log_mel(clip, sample_rate, front_end) for clip in (samples, np.float32(gain) * samples))
    torch.testing.assert_close(heard, louder, rtol=0, atol=1e-2)
    as_it_is = log_mel(np.float32(gain) * samples, sample_rate, FrontEnd())
    assert not torch.allclose(as_it_is, log_mel(samples, sample_rate, FrontEnd()), rtol=0, atol=0.1)


def test_the_peak_is_that_of_the_mean_over_channels_at_the_rate_of_the_front_end(music):
    samples, sample_rate = decode(music)
    samples[:, 1] *= -0.5  # which cancels some of the first channel
    mono = soxr.resample(samples.mean(axis=1), sample_rate, 16000)
    expected = log_mel((mono / np.abs(mono).max())[:, None], 16000, FrontEnd())
    torch.testing.assert_close(log_mel(samples, sample_rate, NORMALISED), expected, rtol=0, atol=1e-3)


def test_one_gain_holds_for_a_whole_clip_also_where_it_is_not_heard():
    clip = noise(12)
    clip[-1] = 1.0  # after the last frame
    assert torch.equal(log_mel(clip, 16000, NORMALISED), log_mel(clip, 16000, FrontEnd()))


@pytest.mark.parametrize("front_end", [VIA, NORMALISED, AS_RELEASED], ids=["via", "normalised", "as released"])
@pytest.mark.parametrize("clip", ["zeros", "opposite channels"])
def test_silence_stays_silence_however_it_is_heard(front_end, clip):
    sound = noise(10, sample_rate=44100)
    samples = np.zeros((441_000, 2), np.float32) if clip == "zeros" else np.hstack([sound, -sound])
    mels = log_mel(samples, 44100, front_end)
    assert torch.equal(mels, log_mel(samples, 44100, FrontEnd()))
    assert float(mels[:998].min()) == float(mels[:998].max()) == pytest.approx(SILENCE)


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 192_000])
def test_a_single_sample_is_heard_as_released(sample_rate):
    assert log_mel(np.full((1, 1), 0.5, np.float32), sample_rate, AS_RELEASED).isfinite().all()


def test_via_22050_hz_nothing_above_11_khz_comes_through():
    wide = FrontEnd(sample_rate=44100)
    moments = np.arange(441_000) / 44100
    high, low = (0.5 * np.sin(2 * np.pi * hertz * moments).astype(np.float32)[:, None] for hertz in (15_000, 3_000))
    through = {
        hertz: log_mel(tone, 44100, replace(wide, via_hz=22050)) for hertz, tone in (("high", high), ("low", low))
    }
    assert float(log_mel(high, 44100, wide)[10:980].max()) > 0
    assert float(through["high"][10:980].max()) < -10
    torch.testing.assert_close(
        through["low"][10:980, 60:75], log_mel(low, 44100, wide)[10:980, 60:75], rtol=0, atol=0.01
    )


def test_via_22050_hz_all_but_the_highest_mels_stay_as_they_were(music):
    samples, sample_rate = decode(music)
    direct, via = (log_mel(samples, sample_rate, front_end) for front_end in (FrontEnd(), VIA))
    assert via.shape == direct.shape
    assert not torch.equal(via, direct)
    difference = (via - direct)[:998].abs()
    assert float(difference[:, 10:110].mean()) < 0.01
    assert (via[998:] == 0).all()


def test_a_clip_at_the_rate_of_the_detour_makes_none():
    clip = noise(10, sample_rate=22050)
    assert torch.equal(log_mel(clip, 22050, VIA), log_mel(clip, 22050, FrontEnd()))


def test_with_both_it_hears_what_the_released_recipe_hears(music):
    torch.testing.assert_close(log_mel(*decode(music), AS_RELEASED), released_front_end(music), rtol=0, atol=5e-3)


def plain_fbank(mono):
    """Return AST's log-mel in plain NumPy, from Kaldi's documentation: a derivation of its own."""

    def mel_of(hertz):
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    starts = np.arange(0, len(mono) - 400 + 1, 160)
    frames = mono.astype(np.float64)[starts[:, None] + np.arange(400)]
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * np.hstack([frames[:, :1], frames[:, :-1]])
    power = np.abs(np.fft.rfft(frames * np.hanning(400), 512))[:, :256] ** 2
    edges, mels = np.linspace(mel_of(20), mel_of(8000), 130), mel_of(np.arange(256) * 16000 / 512)
    low, centre, high = (edges[i : i + 128, None] for i in range(3))
    weights = np.minimum((mels - low) / (centre - low), (high - mels) / (high - centre)).clip(0)
    return np.log(np.maximum(power @ weights.T, np.finfo(np.float32).eps))


@pytest.mark.parametrize("seconds", [7.3, 10.0, 13.7])
def test_as_released_it_equals_a_plain_derivation_at_any_length(music, seconds):
    """Mean over channels, 22.05 kHz, divided by the peak there, 16 kHz, centre 10 s or zero samples behind."""
    samples = np.tile(decode(music)[0], (2, 1))[: round(seconds * 44100)]
    mono = soxr.resample(samples.mean(axis=1, dtype=np.float32), 44100, 22050)
    mono = soxr.resample(mono / np.abs(mono).max(), 22050, 16000)
    excess = len(mono) - 160_000
    mono = mono[excess // 2 :][:160_000] if excess > 0 else np.concatenate([mono, np.zeros(-excess)])
    found = log_mel(samples, 44100, AS_RELEASED).numpy()
    np.testing.assert_allclose(found[:998], plain_fbank(mono), rtol=0, atol=2e-2)
    assert (found[998:] == 0).all()
    if seconds < 10:
        np.testing.assert_allclose(found[898:998], SILENCE, atol=1e-5)
        assert (log_mel(samples, 44100, FrontEnd())[-100:] == 0).all()


# What is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    samples = noise(1, channels=2)
    samples[77, 1] = bad
    with pytest.raises(ValueError, match=rf"samples: sample 77 is \[.*, {bad}\]; samples must be finite"):
        log_mel(samples, 16000, FrontEnd())
    path = tmp_path / "a.ogg"
    soundfile.write(path, samples, 16000, format="WAV", subtype="FLOAT")  # an Ogg Vorbis file cannot hold NaN
    with pytest.raises(ValueError, match=rf"a\.ogg: sample 77 is \[.*, {bad}\]; samples must be finite"):
        decode(path)


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match="samples: holds no samples"):
        log_mel(np.zeros((0, 1), np.float32), 16000, FrontEnd())
    soundfile.write(tmp_path / "a.ogg", np.zeros((0, 1)), 16000, format="OGG", subtype="VORBIS")
    with pytest.raises(ValueError, match=r"a\.ogg: "):
        decode(tmp_path / "a.ogg")
    soundfile.write(tmp_path / "b.ogg", np.zeros((0, 1)), 16000, format="WAV")
    with pytest.raises(ValueError, match=r"b\.ogg: holds no samples"):
        decode(tmp_path / "b.ogg")


@pytest.mark.parametrize("shape", [(100,), (100, 0), (1, 100, 2)])
def test_samples_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"the rule is \(sample, channel\)"):
        log_mel(np.zeros(shape, np.float32), 16000, FrontEnd())


@pytest.mark.parametrize("content", [b"Og", b"<html>not found</html>" * 100, bytes(5000), b"RIFF" + bytes(100)])
def test_what_is_no_sound_is_refused(tmp_path, content):
    (tmp_path / "a.ogg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ogg: not readable as sound \([^<>]*[^.]\)$"):
        decode(tmp_path / "a.ogg")


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.ogg").touch()
    with pytest.raises(ValueError, match=r"a\.ogg: empty, a file of 0 bytes"):
        decode(tmp_path / "a.ogg")


def test_bytes_are_decoded_as_their_file_is(music):
    from_file, from_bytes = decode(music), decode_bytes(music.read_bytes(), source="clip")
    assert from_file[1] == from_bytes[1]
    np.testing.assert_array_equal(from_file[0], from_bytes[0])
    with pytest.raises(ValueError, match=r"clip: truncated, its 100 bytes end before the last Ogg page does"):
        decode_bytes(music.read_bytes()[:100], source="clip")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.ogg"):
        decode(tmp_path / "a.ogg")


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(tone, kept):
    whole = tone.read_bytes()
    decode(tone)
    tone.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"tone\.ogg: truncated, its \d+ bytes end before the last Ogg page does"):
        decode(tone)


def test_a_file_that_claims_more_samples_than_memory_holds_is_refused(tmp_path):
    path = tmp_path / "clip.ogg"
    soundfile.write(path, np.zeros((20_000, 2), np.float32), 16_000, format="FLAC")
    damaged = bytearray(path.read_bytes())
    damaged[21] |= 0x0F  # the highest of the 36 bits of STREAMINFO that count the samples
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"clip\.ogg: too long for a clip, 67,1\d\d\.\d min .* its header is damaged;"):
        decode(path)


@pytest.mark.parametrize(
    ("sample_rate", "channels", "seconds", "said"),
    [
        (44_100, 2, 730, r"12\.2 min and 258 MB decoded"),
        (192_000, 8, 42, r"0\.7 min and 258 MB decoded"),
        (100, 1, 3_601, r"60\.0 min and 1 MB decoded"),  # 231 MB at 16 kHz
    ],
)
def test_a_recording_among_the_clips_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch, sample_rate, channels, seconds, said
):
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.zeros((1, channels), np.int16), sample_rate, format="WAV", subtype="PCM_U8")
    n_bytes = seconds * sample_rate * channels
    content = bytearray(path.read_bytes()[:44])
    content[4:8], content[40:44] = (n_bytes + 36).to_bytes(4, "little"), n_bytes.to_bytes(4, "little")
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=rf"clip: too long for a clip, {said}.* at most 60 min and 256 MB .*: cut"):
        decode_bytes(bytes(content) + bytes(n_bytes), source="clip")


def test_the_longest_recording_that_is_read_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(frontend, "_MOST_BYTES", 4 * 16_000 * 2)
    soundfile.write(tmp_path / "a.ogg", noise(2), 16_000, format="WAV")
    assert len(decode(tmp_path / "a.ogg")[0]) == 32_000
    soundfile.write(tmp_path / "a.ogg", noise(2.001), 16_000, format="WAV")
    with pytest.raises(ValueError, match=r"a\.ogg: too long for a clip"):
        decode(tmp_path / "a.ogg")


CASES = Path(__file__).parents[1] / "fixtures"


def sound_bytes(sound_format, subtype="PCM_16", *, samples=None, sample_rate=16_000):
    stream = io.BytesIO()
    samples = noise(1, channels=2) if samples is None else samples
    soundfile.write(stream, samples, sample_rate, format=sound_format, subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW"])
@pytest.mark.parametrize("sound_format", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "VOC"])
def test_a_cut_file_names_the_frames_that_its_header_promises(sound_format, subtype):
    if (sound_format, subtype) == ("VOC", "PCM_24"):
        return
    whole = sound_bytes(sound_format, subtype)
    assert len(decode_bytes(whole, source="clip")[0]) == 16_000
    for n_cut in (7, len(whole) // 2):
        with pytest.raises(ValueError, match=r"clip: truncated, .* promises 16000 frames, \d+ are there"):
            decode_bytes(whole[:-n_cut], source="clip")


def test_a_cut_wav_file_says_how_much_of_it_is_there():
    whole = sound_bytes("WAV", samples=np.zeros((88_200, 1), np.float32), sample_rate=44_100)
    with pytest.raises(ValueError, match="promises 88200 frames, 44089 are there"):
        decode_bytes(whole[:88_222], source="clip")


@pytest.mark.parametrize("sound_format", ["NIST", "AVR", "CAF", "PAF"])
def test_a_container_whose_cut_nothing_shows_is_refused(sound_format):
    with pytest.raises(ValueError, match=f"clip: a {sound_format} file.* convert it to one of WAV"):
        decode_bytes(sound_bytes(sound_format), source="clip")


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"])
def test_a_streamed_wav_file_is_read(size):
    content = sound_bytes("WAV")
    assert len(decode_bytes(content[:40] + size + content[44:], source="clip")[0]) == 16_000


@pytest.mark.parametrize("stated", [2_000_000_000, 768_001])
def test_an_implausible_sample_rate_is_refused(stated):
    content = sound_bytes("WAV")
    content = content[:24] + stated.to_bytes(4, "little") + content[28:]
    with pytest.raises(ValueError, match=f"implausible sample rate, {stated} Hz"):
        decode_bytes(content, source="clip")


@pytest.mark.parametrize(
    ("name", "n_frames"),
    [
        ("noxing_cbr.mp3", 89_856),
        ("unknown_length.flac", 88_200),
        ("theora_first.ogg", 88_200),
        ("oggflac.ogg", 88_200),
    ],
)
def test_whole_files_that_state_no_length_or_hold_more_than_sound_are_read(name, n_frames):
    samples, sample_rate = decode(CASES / name)
    assert (samples.shape, samples.dtype, sample_rate) == ((n_frames, 2), np.float32, 44_100)
    assert 0.01 < np.abs(samples).max() <= 1.1


@pytest.mark.parametrize("name", ["unknown_length.flac", "oggflac.ogg", "theora_first.ogg"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_such_files_are_refused_if_cut_or_damaged(name, damage):
    content = bytearray((CASES / name).read_bytes())
    if damage == "cut":
        del content[int(0.9 * len(content)) :]
    else:
        content[len(content) // 2] ^= 4
    with pytest.raises(ValueError, match=r"clip: (truncated|damaged|not readable as sound)"):
        decode_bytes(bytes(content), source="clip")


def test_a_cut_mp3_file_with_its_length_is_refused():
    content = sound_bytes("MP3", "MPEG_LAYER_III")
    assert len(decode_bytes(content, source="clip")[0]) == 16_000
    with pytest.raises(ValueError, match=r"clip: damaged, \d+ of its 16000 samples"):
        decode_bytes(content[: len(content) // 2], source="clip")


def test_a_file_truncated_between_two_pages_is_refused(tone):
    whole = tone.read_bytes()
    tone.write_bytes(whole[: whole.rindex(b"OggS")])
    with pytest.raises(ValueError, match=r"tone\.ogg: truncated"):
        decode(tone)


def pages_in(content):
    """Return the bytes of each page."""
    return [content[page.start : page.end] for page in ogg.pages_of(content)]


def sealed(page):
    """Return a page with the checksum that its bytes have."""
    return page[:22] + ogg.checksum(page) + page[26:]


@pytest.mark.parametrize("bit", [0, 3, 7])
@pytest.mark.parametrize("number", [0, 1, 2, 3, -1])
def test_a_page_with_a_changed_bit_is_refused_wherever_it_is(like_openmic, number, bit):
    """Decoders drop such a page; without the first or the last one of sound a clip was shorter, and nobody told."""
    pages = pages_in(like_openmic.read_bytes())
    start, damaged = len(b"".join(pages[:number])), bytearray(pages[number])
    damaged[len(damaged) // 2] ^= 1 << bit
    pages[number] = bytes(damaged)
    with pytest.raises(ValueError, match=rf"clip: damaged, the Ogg page at byte {start} of its \d+ fails its checksum"):
        decode_bytes(b"".join(pages), source="clip")


@pytest.mark.parametrize("damage", ["swapped", "repeated instead of the next", "lost", "the first of sound lost"])
def test_pages_that_are_out_of_order_are_refused(music, damage):
    pages = pages_in(music.read_bytes())
    at = 2 if damage == "the first of sound lost" else 5
    pages[at : at + 2] = {"swapped": [pages[6], pages[5]], "repeated instead of the next": [pages[5], pages[5]]}.get(
        damage, [pages[at + 1]]
    )
    found, wanted = {"repeated instead of the next": (5, 6)}.get(damage, (at + 1, at))
    with pytest.raises(ValueError, match=rf"clip: damaged, .* is number {found} of its stream, where number {wanted} "):
        decode_bytes(b"".join(pages), source="clip")


def test_recordings_one_after_another_are_no_clip(music, tone):
    first, second = tone.read_bytes(), music.read_bytes()
    with pytest.raises(ValueError, match=rf"clip: several recordings .* from byte {len(first)} on; a clip is one"):
        decode_bytes(first + second, source="clip")
    for n_kept in (4, 27, 40):  # of the second one's first page
        with pytest.raises(ValueError, match=r"clip: truncated"):
            decode_bytes(first + second[:n_kept], source="clip")
    assert len(decode_bytes(first + b"TAG and no page", source="clip")[0]) == len(decode(tone)[0])


def test_a_page_whose_header_is_gone_is_damage_and_no_truncation(music):
    pages = pages_in(music.read_bytes())
    start, content = len(b"".join(pages[:6])), bytearray(b"".join(pages))
    content[start : start + 30] = bytes(30)
    with pytest.raises(ValueError, match=rf"clip: damaged, no Ogg page begins at byte {start} of its {len(content)}"):
        decode_bytes(bytes(content), source="clip")


def test_packets_that_cannot_be_decoded_are_missed_though_their_page_is_whole(music):
    pages = pages_in(music.read_bytes())
    start = ogg.HEADER_BYTES + pages[6][26]  # of what follows the lengths
    pages[6] = sealed(pages[6][:start] + bytes([1]) * (len(pages[6]) - start))
    with pytest.raises(ValueError, match=r"clip: damaged, \d+ of its 441000 samples can be decoded"):
        decode_bytes(b"".join(pages), source="clip")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 0),
        ("n_mels", 3),
        ("window_ms", -1.0),
        ("hop_ms", float("nan")),
        ("n_frames", 0),
        ("via_hz", -22050),
        ("via_hz", float("inf")),
        ("clip_seconds", -1.0),
    ],
)
def test_a_front_end_out_of_range_is_refused_by_its_field(field, value):
    with pytest.raises(ValueError, match=f"front end {field}={value}"):
        FrontEnd(**{field: value})


def test_a_front_end_without_whole_samples_is_refused():
    with pytest.raises(ValueError, match=r"hop_ms=0\.01: at 16000 Hz the window must span 2 samples or more"):
        FrontEnd(hop_ms=0.01)
