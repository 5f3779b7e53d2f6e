"""Log-mel as AST was trained on, from any sound file."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from torchaudio.compliance import kaldi

from harness.benchmarks.front_end import released_front_end
from harness.features.audio import FRONT_END_VERSION, decode
from harness.features.log_mel import FrontEnd, log_mel
from tests.support.clips import noise
from tests.support.layouts import write_tone

SILENCE = float(np.log(np.finfo(np.float32).eps))  # -15.94


NANO = FrontEnd(window_ms=50, hop_ms=40, n_frames=256)


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


def test_a_short_clip_is_the_start_of_a_long_one_then_zeros():
    long = noise(10)
    short = log_mel(long[:32_000], 16000, FrontEnd())
    torch.testing.assert_close(short[:198], log_mel(long, 16000, FrontEnd())[:198])
    assert (short[198:] == 0).all()


def test_samples_after_the_last_frame_change_nothing():
    long = noise(14)
    mels = log_mel(long, 16000, FrontEnd())
    long[FrontEnd().clip_samples :] = 0
    torch.testing.assert_close(mels, log_mel(long, 16000, FrontEnd()), rtol=0, atol=0)
    assert (mels != 0).any(dim=1).all()


@pytest.mark.parametrize("front_end", [FrontEnd(), NANO], ids=["ast", "nano"])
@pytest.mark.parametrize("n_samples", [1, 399, 400, 401, 801])
def test_a_clip_shorter_than_a_window_gives_one_frame(front_end, n_samples):
    mels = log_mel(np.full((n_samples, 1), 0.5, np.float32), 16000, front_end)
    n_frames = max(1, 1 + (n_samples - front_end.window_samples) // front_end.hop_samples)
    assert int((mels != 0).any(dim=1).sum()) == n_frames
    assert mels.isfinite().all()


def test_channels_are_averaged():
    left, right = noise(1, seed=1), noise(1, seed=2)
    both = log_mel(np.hstack([left, right]), 16000, FrontEnd())
    torch.testing.assert_close(both, log_mel((left + right) / 2, 16000, FrontEnd()))
    opposite = log_mel(np.hstack([left, -left]), 16000, FrontEnd())
    assert float(opposite[:98].max()) == pytest.approx(SILENCE)


@pytest.mark.parametrize(("sample_rate", "channels"), [(8000, 1), (22050, 2), (44100, 2), (96000, 8)])
def test_a_tone_lies_at_its_pitch_whatever_the_file(tmp_path, sample_rate, channels):
    write_tone(tmp_path / "a.ogg", hertz=1000, seconds=1, sample_rate=sample_rate, channels=channels)
    samples, decoded_rate = decode(tmp_path / "a.ogg")
    assert (samples.shape[1], decoded_rate) == (channels, sample_rate)
    mels = log_mel(samples, sample_rate, FrontEnd())
    assert int(mels[10:90].mean(dim=0).argmax()) == 43
    assert int((mels != 0).any(dim=1).sum()) == 98


VIA = replace(FrontEnd(), via_hz=22050)


NORMALISED = replace(FrontEnd(), is_peak_normalised=True)


AS_RELEASED = replace(VIA, is_peak_normalised=True, clip_seconds=10.0)


def resampled_log_mel(path):
    """Return AST's log-mel as torchaudio computes it."""
    samples, sample_rate = decode(path)
    mono = soxr.resample((samples[:, 0] + samples[:, 1]) / np.float32(2), sample_rate, 16000)
    options = {"window_type": "hanning", "htk_compat": True, "use_energy": False, "dither": 0.0}
    return kaldi.fbank(torch.from_numpy(mono)[None], num_mel_bins=128, **options)


def test_without_detour_and_normalisation_it_equals_kaldi(music):
    ours = log_mel(*decode(music), FrontEnd())
    torch.testing.assert_close(ours[:998], resampled_log_mel(music), rtol=0, atol=5e-6)
    assert FRONT_END_VERSION == 5


@pytest.mark.parametrize("gain", [1e-4, 0.3, 2.0, 30.0])
@pytest.mark.parametrize("front_end", [NORMALISED, AS_RELEASED], ids=["normalised", "as released"])
def test_with_peak_normalisation_the_gain_of_a_clip_changes_nothing(music, gain, front_end):
    samples, sample_rate = decode(music)
    mels, louder = (log_mel(clip, sample_rate, front_end) for clip in (samples, np.float32(gain) * samples))
    torch.testing.assert_close(mels, louder, rtol=0, atol=1e-2)
    as_it_is = log_mel(np.float32(gain) * samples, sample_rate, FrontEnd())
    assert not torch.allclose(as_it_is, log_mel(samples, sample_rate, FrontEnd()), rtol=0, atol=0.1)


def test_the_peak_is_that_of_the_mean_over_channels_at_the_rate_of_the_front_end(music):
    samples, sample_rate = decode(music)
    samples[:, 1] *= -0.5  # which cancels some of the first channel
    mono = soxr.resample(samples.mean(axis=1), sample_rate, 16000)
    expected = log_mel((mono / np.abs(mono).max())[:, None], 16000, FrontEnd())
    torch.testing.assert_close(log_mel(samples, sample_rate, NORMALISED), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("front_end", [VIA, NORMALISED, AS_RELEASED], ids=["via", "normalised", "as released"])
@pytest.mark.parametrize("clip", ["zeros", "opposite channels"])
def test_silence_stays_silence_with_every_front_end(front_end, clip):
    sound = noise(10, sample_rate=44100)
    samples = np.zeros((441_000, 2), np.float32) if clip == "zeros" else np.hstack([sound, -sound])
    mels = log_mel(samples, 44100, front_end)
    assert torch.equal(mels, log_mel(samples, 44100, FrontEnd()))
    assert float(mels[:998].min()) == float(mels[:998].max()) == pytest.approx(SILENCE)


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


def test_with_both_it_equals_the_released_recipe(music):
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 0),
        ("n_mels", 3),
        ("hop_ms", float("nan")),
        ("via_hz", float("inf")),
        ("clip_seconds", -1.0),
    ],
)
def test_a_front_end_out_of_range_is_refused_by_its_field(field, value):
    with pytest.raises(ValueError, match=f"front end {field}={value}"):
        FrontEnd(**{field: value})
    with pytest.raises(ValueError, match=r"hop_ms=0\.01: at 16000 Hz the window must span 2 samples or more"):
        FrontEnd(hop_ms=0.01)
