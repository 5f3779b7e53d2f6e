"""From a sound file to the log-mel spectrogram that AST was trained on.

Conventions: samples are float32 in [-1, 1], shaped (sample, channel); a spectrogram is float32, shaped
(frame, mel), in natural-log energy, not normalised. Digital silence is log(float32 epsilon) = -15.94 in every
bin; frames past the end of a clip are 0, as in AST.
"""

import functools
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from harness.data.filterbank import log_mel_energies
from harness.data.ogg import is_ogg, why_not_whole
from harness.data.vorbis import MOST_CHANNELS, decode_vorbis

FRONT_END_VERSION = 4
"""Goes up when `decode` or `log_mel` begins to give other numbers for a file, or none: stores are then rebuilt."""

_MOST_BYTES, _MOST_SECONDS = 256_000_000, 3600
"""What one file may hold, what it may decode to, in float32 over all its channels, and how long it may last.

A clip has 10 s, which are 3.5 MB.
"""


@dataclass(frozen=True)
class FrontEnd:
    """A Kaldi-style log-mel filterbank. The default is AST's: 10 s give 998 frames, padded to 1024.

    `via_hz`: the rate that samples are resampled to on the way to `sample_rate`; 0 is no detour. 22050 is the detour of
    the recipe that Chen and Lerch released: nothing above 11 kHz comes through, which 16 kHz would not hold anyway.
    `is_peak_normalised`: a clip's loudest sample becomes 1, whatever its gain.

    Source: Gong et al., "AST: Audio Spectrogram Transformer", Interspeech 2021, section 3.1, and its code.
    """

    sample_rate: int = 16000
    n_mels: int = 128
    window_ms: float = 25.0
    hop_ms: float = 10.0
    n_frames: int = 1024
    via_hz: int = 0
    is_peak_normalised: bool = False

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_mels", "window_ms", "hop_ms", "n_frames"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"front end {name}={value!r}: it must be a finite number above 0")
        if not math.isfinite(self.via_hz) or self.via_hz < 0:
            raise ValueError(f"front end via_hz={self.via_hz!r}: it must be 0, for no detour, or a rate in Hz above 0")
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
        """How many samples `n_frames` frames cover; what comes after them is not heard."""
        return self.window_samples + (self.n_frames - 1) * self.hop_samples


def decode(path: Path) -> tuple[Float[np.ndarray, "sample channel"], int]:
    """Read a sound file of any sample rate and channel count; return its samples and its sample rate in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not sound, ends too early, holds no samples, or holds NaN or infinite ones; or it is no clip
            but longer than an hour or 256 MB decoded, which is told by its header and not decoded, or by its size and
            not read.
    """
    if too_large := why_too_large(path.stat().st_size):
        raise ValueError(f"{path}: {too_large}")
    return decode_bytes(path.read_bytes(), source=str(path))


def decode_bytes(content: bytes, *, source: str) -> tuple[Float[np.ndarray, "sample channel"], int]:
    """Decode a sound file's bytes as `decode` does; `source` names it in what is raised.

    Raises:
        ValueError: as `decode` does.
    """
    if not content:
        raise ValueError(f"{source}: empty, a file of 0 bytes")
    if is_ogg(content) and (lacking := why_not_whole(content)):
        raise ValueError(f"{source}: {lacking}")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            sample_rate, n_expected = int(file.samplerate), int(file.frames)
            if too_long := why_too_long(n_expected, file.channels, sample_rate):
                raise ValueError(f"{source}: {too_long}")
            samples = _samples_of(file, content)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{source}: not readable as sound ({_reason(error)})") from error
    if len(samples) != n_expected:
        raise ValueError(f"{source}: damaged, {len(samples)} of its {n_expected} samples can be decoded")
    _check_samples(samples, source=source)
    return samples, sample_rate


def _samples_of(file: soundfile.SoundFile, content: bytes) -> Float[np.ndarray, "sample channel"]:
    """Return what a file holds: by a faster decoder, if there is one for its format and that decodes all of it."""
    is_vorbis = (file.format, file.subtype) == ("OGG", "VORBIS")
    if is_vorbis and file.channels <= MOST_CHANNELS:
        samples = decode_vorbis(content)
        if samples.shape == (file.frames, file.channels):
            return samples
    return np.asarray(file.read(dtype="float32", always_2d=True))


def why_too_large(n_bytes: int) -> str:
    """Say what keeps a file of this size from being read; "" if nothing does. It would fill the memory as it is."""
    if n_bytes <= _MOST_BYTES:
        return ""
    return (
        f"too large for a clip, a file of {n_bytes / 1e6:,.0f} MB; at most {_MOST_BYTES // 10**6} MB are read: cut "
        "recordings into clips"
    )


def why_too_long(n_samples: int, n_channels: int, sample_rate: int) -> str:
    """Say what keeps a file of this length, as its header has it, from being read; "" if nothing does.

    It would fill the memory: once decoded, or, if its sample rate is low, once resampled.
    """
    n_bytes, seconds = 4 * n_samples * n_channels, n_samples / sample_rate
    if n_bytes <= _MOST_BYTES and seconds <= _MOST_SECONDS:
        return ""
    return (
        f"too long for a clip, {seconds / 60:,.1f} min and {n_bytes / 1e6:,.0f} MB decoded, unless its header is "
        f"damaged; at most {_MOST_SECONDS // 60} min and {_MOST_BYTES // 10**6} MB are read: cut recordings into clips"
    )


def log_mel(
    samples: Float[np.ndarray, "sample channel"], sample_rate: int, front_end: FrontEnd
) -> Float[Tensor, "frame mel"]:
    """Return the log-mel spectrogram of the mean over channels, zero-padded or cropped to `n_frames`.

    A clip shorter than one window is padded with silence to one window.

    Source: Kaldi's compute-fbank-feats as AST calls it: Hann window, no dither, no energy, HTK order.

    Raises:
        ValueError: no samples, or NaN or infinite ones.
    """
    _check_samples(samples, source="samples")
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
    """Return the mean over channels at the front end's rate, its peak at 1 if that is asked for.

    The peak is the largest absolute sample of what the filterbank is about to hear: after the mean over channels, which
    may cancel, and after resampling, which moves it; but before the crop to `n_frames`, as one gain for the whole clip.

    Source: the recipe that Chen and Lerch released decodes at 22.05 kHz, resamples to 16 kHz, divides by the peak.
    Differs: silence stays silence; there it is divided by 0 and becomes NaN.
    """
    mono: np.ndarray = functools.reduce(np.add, samples.T) / np.float32(samples.shape[1])  # 10 x `mean(axis=1)`'s speed
    for rate in (front_end.via_hz or sample_rate, front_end.sample_rate):
        if rate != sample_rate:
            mono, sample_rate = soxr.resample(mono, sample_rate, rate), rate
    if front_end.is_peak_normalised and (peak := np.abs(mono).max(initial=0)) > 0:
        mono = mono / peak
    return mono


def _check_samples(samples: np.ndarray, *, source: str) -> None:
    if samples.ndim != 2 or samples.shape[1] == 0:
        raise ValueError(f"{source}: samples have shape {samples.shape}; the rule is (sample, channel)")
    if len(samples) == 0:
        raise ValueError(f"{source}: holds no samples")
    # a NaN is both the least and the largest; to look at each sample takes three times as long
    if not (np.isfinite(samples.min()) and np.isfinite(samples.max())):
        row = int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise ValueError(f"{source}: sample {row} is {samples[row].tolist()}; samples must be finite")


def _reason(error: soundfile.SoundFileError) -> str:
    """Return what libsndfile says, without the name of the stream that we gave it."""
    return str(getattr(error, "error_string", error)).rstrip(".")
