"""From samples to the log-mel spectrogram that AST was trained on.

Conventions: samples are float32 in [-1, 1], shaped (sample, channel); a spectrogram is float32, shaped
(frame, mel), in natural-log energy, not normalised. Digital silence is log(float32 epsilon) = -15.94 in every
bin; frames past the end of a clip are 0, as in AST.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor
from torchaudio.compliance import kaldi


@dataclass(frozen=True)
class FrontEnd:
    """A Kaldi-style log-mel filterbank. The default is AST's: 10 s give 998 frames, padded to 1024.

    `via_hz`: the rate that samples are resampled to before `sample_rate`; 0 is no detour.
    `is_peak_normalised`: the clip is divided by its largest absolute sample, at `via_hz` if there is a detour.
    `clip_seconds`: longer clips are cropped to their centre and shorter ones padded with zero samples; 0 does neither.

    Source: Gong et al., "AST: Audio Spectrogram Transformer", Interspeech 2021, section 3.1, and its code. The recipe
    that Chen and Lerch released sets `via_hz=22050`, `is_peak_normalised=True` and `clip_seconds=10`.
    """

    sample_rate: int = 16000
    n_mels: int = 128
    window_ms: float = 25.0
    hop_ms: float = 10.0
    n_frames: int = 1024
    via_hz: int = 0
    is_peak_normalised: bool = False
    clip_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_mels", "window_ms", "hop_ms", "n_frames", "via_hz", "clip_seconds"):
            value, may_be_zero = getattr(self, name), name in {"via_hz", "clip_seconds"}
            if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                raise ValueError(f"front end {name}={value!r}: must be finite and {'0 or ' * may_be_zero}above 0")
        if self.n_mels < 4:
            raise ValueError(f"front end n_mels={self.n_mels}: Kaldi's filterbank needs 4 or more")
        if self.window_samples < 2 or self.hop_samples < 1:
            raise ValueError(
                f"front end window_ms={self.window_ms}, hop_ms={self.hop_ms}: at {self.sample_rate} Hz "
                "the window must span 2 samples or more and the hop 1 or more"
            )

    @property
    def window_samples(self) -> int:
        """The window's length in samples."""
        return int(self.sample_rate * self.window_ms * 0.001)

    @property
    def hop_samples(self) -> int:
        """The distance between two windows in samples."""
        return int(self.sample_rate * self.hop_ms * 0.001)

    @property
    def clip_samples(self) -> int:
        """The number of samples that `n_frames` frames cover; the filterbank drops later ones."""
        return self.window_samples + (self.n_frames - 1) * self.hop_samples


def log_mel(
    samples: Float[np.ndarray, "sample channel"], sample_rate: int, front_end: FrontEnd
) -> Float[Tensor, "frame mel"]:
    """Return the log-mel spectrogram of the mean over channels, zero-padded or cropped to `n_frames`.

    A clip shorter than one window is padded with silence to one window.

    Source: Kaldi's compute-fbank-feats as AST calls it: Hann window, no dither, no energy, HTK order.
    """
    mono = _mono(samples, sample_rate, front_end)[: front_end.clip_samples]
    if (n_short := front_end.window_samples - len(mono)) > 0:
        mono = np.pad(mono, (0, n_short))
    with torch.inference_mode():
        mels = log_mel_energies(
            torch.from_numpy(mono),
            sample_rate=front_end.sample_rate,
            n_mels=front_end.n_mels,
            window_samples=front_end.window_samples,
            hop_samples=front_end.hop_samples,
        )
    padded = torch.zeros(front_end.n_frames, front_end.n_mels)
    padded[: len(mels)] = mels[: front_end.n_frames]
    return padded


def _mono(
    samples: Float[np.ndarray, "sample channel"], sample_rate: int, front_end: FrontEnd
) -> Float[np.ndarray, " sample"]:
    """Return the mean over channels at the front end's rate, normalised, cropped and padded as it requires.

    The peak is that of the whole clip at `via_hz`, or at `sample_rate` without a detour. Resampling moves it, so after
    a detour the loudest sample is near 1 and not exactly 1.

    Source: the recipe that Chen and Lerch released decodes at 22.05 kHz, divides by the peak, resamples to 16 kHz.
    Differs: silence stays silence; there it is divided by 0 and becomes NaN.
    """
    mono: np.ndarray = reduce(np.add, samples.T) / np.float32(samples.shape[1])  # 10 x `mean(axis=1)`'s speed
    peak_rate = front_end.via_hz or front_end.sample_rate
    mono = _resample(mono, sample_rate, peak_rate)
    if front_end.is_peak_normalised and (peak := np.abs(mono).max(initial=0)) > 0:
        mono = mono / peak
    mono = _resample(mono, peak_rate, front_end.sample_rate)
    n_samples = round(front_end.clip_seconds * front_end.sample_rate)
    if n_samples == 0:
        return mono
    start = max(0, len(mono) - n_samples) // 2
    centre = mono[start : start + n_samples]
    return np.pad(centre, (0, n_samples - len(centre)))


def _resample(mono: Float[np.ndarray, " sample"], rate: int, wanted: int) -> Float[np.ndarray, " sample"]:
    return mono if rate == wanted else soxr.resample(mono, rate, wanted)


_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97
_MELS_OF_A_BAND = 16
_LEAST_ENERGY = torch.finfo(torch.float32).eps


def log_mel_energies(
    mono: Float[Tensor, " sample"], *, sample_rate: int, n_mels: int, window_samples: int, hop_samples: int
) -> Float[Tensor, "frame mel"]:
    """Return the natural log of each frame's mel energies: Hann window, pre-emphasis, no dither, no offset.

    Frames that would reach beyond the last sample are dropped.
    """
    window, n_fourier, bands = _tables(sample_rate, n_mels, window_samples)
    frames = mono.unfold(0, window_samples, hop_samples)
    frames = frames - frames.mean(dim=1, keepdim=True)
    sharpened = torch.empty_like(frames)
    # a frame's first sample counts as its own predecessor
    torch.mul(frames[:, :1], -_PREEMPHASIS, out=sharpened[:, :1])
    torch.mul(frames[:, :-1], -_PREEMPHASIS, out=sharpened[:, 1:])
    sharpened.add_(frames).mul_(window)
    spectrum = torch.fft.rfft(sharpened, n=n_fourier)
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    energies = torch.cat([power[:, bins] @ weights for bins, weights in bands], dim=1)
    return energies.clamp_(min=_LEAST_ENERGY).log_()


@lru_cache(maxsize=8)
def _tables(
    sample_rate: int, n_mels: int, window_samples: int
) -> tuple[Float[Tensor, " sample"], int, list[tuple[slice, Float[Tensor, "bin mel"]]]]:
    """Return the window, the length of the Fourier transform, and bands of mels: their bins, and the weights of these.

    Most mels weight few bins. A product with all weights, nearly all of them 0, takes four times as long.
    """
    n_fourier = 1 << (window_samples - 1).bit_length()  # the window's length or the next power of two
    weights, _ = kaldi.get_mel_banks(n_mels, n_fourier, float(sample_rate), _LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)
    bands = []
    for of_band in weights.split(_MELS_OF_A_BAND):
        used = torch.nonzero(of_band.any(dim=0)).flatten().tolist() or [0]
        bins = slice(used[0], used[-1] + 1)
        bands.append((bins, of_band[:, bins].T.contiguous()))
    return torch.hann_window(window_samples, periodic=False), n_fourier, bands
