"""Our filterbank is torchaudio's Kaldi filterbank, only faster."""

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from harness.features.log_mel import log_mel_energies


def sounds():
    rng = np.random.default_rng(0)
    moments = np.arange(32_000) / 16_000
    return {
        "noise": 0.1 * rng.standard_normal(32_000),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * moments),
        "clicks": (np.arange(32_000) % 1000 == 0).astype(float),
        "offset": 0.9 + 0.001 * rng.standard_normal(32_000),
        "loud": 30.0 * rng.standard_normal(32_000),
        "faint": 1e-6 * rng.standard_normal(32_000),
        "silence": np.zeros(32_000),
    }


@pytest.mark.parametrize("name", sounds())
@pytest.mark.parametrize(
    ("sample_rate", "n_mels", "window", "hop"),
    [
        (16000, 128, 400, 160),
        (16000, 128, 800, 640),
        (8000, 4, 200, 80),
        (44100, 300, 1102, 441),
    ],
)
def test_it_equals_torchaudios(name, sample_rate, n_mels, window, hop):
    """Also where a mel is so narrow that it weights no bin at all, as some of 300 at 44.1 kHz."""
    sound = torch.from_numpy(sounds()[name].astype(np.float32))
    expected = kaldi.fbank(
        sound[None],
        sample_frequency=sample_rate,
        num_mel_bins=n_mels,
        frame_length=1000 * (window + 0.5) / sample_rate,
        frame_shift=1000 * (hop + 0.5) / sample_rate,
        window_type="hanning",
        htk_compat=True,
        use_energy=False,
        dither=0.0,
    )
    ours = log_mel_energies(sound, sample_rate=sample_rate, n_mels=n_mels, window_samples=window, hop_samples=hop)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_one_window_gives_one_frame_and_no_sound_is_changed():
    sound = torch.linspace(-1, 1, 400)
    before = sound.clone()
    found = log_mel_energies(sound, sample_rate=16000, n_mels=128, window_samples=400, hop_samples=160)
    assert found.shape == (1, 128)
    assert torch.equal(sound, before)
