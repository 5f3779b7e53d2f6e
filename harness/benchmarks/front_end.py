"""The front end: clips a second of one core, beside what the released code of the paper does for every clip and epoch.

The clock is this process's CPU time, all its threads together, so that a core's figure holds on a busy machine too.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor
from torchaudio.compliance import kaldi

from harness.benchmarks.timing import Ratio, interleaved, ratio, speed, torch_threads
from harness.data.batches import Split
from harness.data.dataset import ClipDataset
from harness.features.extract import extract
from harness.features.log_mel import FrontEnd

RELEASED, PREPARE, READ = "released code, every epoch", "ours, once", "ours, every epoch"
RELEASED_EPOCHS = 30
_SAMPLE_RATE, _LIBROSA_RATE, _AST_RATE = 44_100, 22_050, 16_000
_BATCH = 8


@dataclass(frozen=True)
class FrontEndSpeed:
    """One way from a stereo OGG file of 44.1 kHz to AST's 1024 x 128 log-mel; the ratio is to the released code's."""

    way: str
    clips: int
    seconds_of_a_clip: float
    rounds: int
    clips_per_core_second: float
    ratio: Ratio


def measure_front_end(*, clips: int = 24, clip_seconds: float = 10.0, rounds: int = 5) -> list[FrontEndSpeed]:
    """Compare the released path, filling our cache, and reading batches from it.

    The last row is what `RELEASED_EPOCHS` epochs, the released recipe's, cost either way: preparing once and reading
    each time.
    """
    with tempfile.TemporaryDirectory() as directory, torch_threads(1):
        dataset = synthetic_clips(Path(directory), clips=clips, seconds=clip_seconds)
        seconds = interleaved(_ways(dataset), rounds=rounds, clock=time.process_time)
    study = f"ours, each of {RELEASED_EPOCHS} epochs"
    seconds[study] = tuple(
        prepare / RELEASED_EPOCHS + read for prepare, read in zip(seconds[PREPARE], seconds[READ], strict=True)
    )
    return [
        FrontEndSpeed(way, clips, clip_seconds, rounds, speed(clips, taken), ratio(taken, seconds[RELEASED]))
        for way, taken in seconds.items()
    ]


def released_front_end(path: Path) -> Float[Tensor, "frame mel"]:
    """Return a clip's log-mel by way of 22.05 kHz, as `librosa.load` and then AST's loader give it.

    Source: the recipe in the paper's released code; librosa 0.10 for how it loads: mean over channels, then soxr.
    Differs: no librosa. Where the recipe leaves a choice, the cheaper one is taken: one channel and soxr throughout.
    """
    samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = soxr.resample(samples.T.mean(axis=0), sample_rate, _LIBROSA_RATE)
    sound = soxr.resample(sound / np.abs(sound).max(), _LIBROSA_RATE, _AST_RATE)
    mels = kaldi.fbank(
        torch.from_numpy(sound)[None],
        sample_frequency=_AST_RATE,
        num_mel_bins=128,
        frame_shift=10,
        window_type="hanning",
        htk_compat=True,
        use_energy=False,
        dither=0.0,
    )
    n_frames = FrontEnd().n_frames
    return torch.nn.functional.pad(mels[:n_frames], (0, 0, 0, max(0, n_frames - len(mels))))


def synthetic_clips(root: Path, *, clips: int, seconds: float) -> ClipDataset:
    """Write stereo OGG clips of decaying chords over noise; return them as a data set with one label."""
    keys = tuple(f"{index:06d}_0" for index in range(clips))
    targets = np.ones((clips, 1), np.float32)
    rows = np.arange(clips)
    paths = tuple(root / f"{key}.ogg" for key in keys)
    dataset = ClipDataset(
        "synthetic",
        root,
        ("sound",),
        keys,
        paths,
        targets,
        targets > 0,
        rows,
        rows[:0],
        artists=None,
        vggish=None,
        digest="",
    )
    root.mkdir(parents=True, exist_ok=True)
    for row, path in enumerate(paths):
        soundfile.write(path, _chords(row, seconds), _SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return dataset


def _ways(dataset: ClipDataset) -> dict[str, Callable[[], object]]:
    paths = list(dataset.paths)
    cache = dataset.root / "cache"

    def prepare() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        extract(paths, FrontEnd(), cache=cache)

    def read() -> None:
        part = Split(extract(paths, FrontEnd(), cache=cache).rows, dataset.train, dataset.targets, dataset.observed)
        for batch in np.array_split(np.arange(len(part)), -(-len(part) // _BATCH)):
            part.batch(batch, torch.device("cpu"))

    return {RELEASED: lambda: [released_front_end(path) for path in paths], PREPARE: prepare, READ: read}


def _chords(seed: int, seconds: float) -> Float[np.ndarray, "sample channel"]:
    rng = np.random.default_rng(seed)
    n_samples, n_chord = round(seconds * _SAMPLE_RATE), _SAMPLE_RATE // 2
    moments = np.arange(n_chord) / _SAMPLE_RATE
    sound = 0.01 * rng.standard_normal((n_samples, 2))
    for start in range(0, n_samples - n_chord, n_chord):
        for pitch in rng.uniform(80, 800, 3):
            overtones = sum(np.sin(2 * np.pi * pitch * k * moments) / k for k in range(1, 11))
            sound[start : start + n_chord] += 0.08 * np.outer(overtones * np.exp(-4 * moments), rng.uniform(0.2, 1, 2))
    return sound.clip(-1, 1).astype(np.float32)
