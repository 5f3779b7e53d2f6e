"""The front end and whole preparations: clips a second, beside the released code of the paper.

`measure_front_end` counts CPU time, all threads of this process together: a core's figure then holds on a busy machine
too. `measure_preparation` counts wall time: it shows whether twice the cores take half as long.
"""

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor
from torchaudio.compliance import kaldi

from harness.benchmarks.timing import Measurement, Row, interleaved, ratio, speed, torch_threads
from harness.common.ray_start import cpu_count
from harness.data.batches import Split
from harness.features.extract import extract
from harness.features.log_mel import FrontEnd

RELEASED, PREPARE, READ = "released code, every epoch", "ours, once", "ours, every epoch"
ONE, THREADS = "ours, 1 thread", "ours, {} threads"
RELEASED_EPOCHS = 30
_SAMPLE_RATE, _LIBROSA_RATE, _AST_RATE = 44_100, 22_050, 16_000
_BATCH = 8


def measure_front_end(*, clips: int = 24, clip_seconds: float = 10.0, rounds: int = 5) -> Measurement:
    """Compare the released code, filling our cache, and reading batches from it, by CPU time on one thread.

    The last row is the cost of each of `RELEASED_EPOCHS` epochs, the released recipe's: our preparation is done once.
    """
    with tempfile.TemporaryDirectory() as directory, torch_threads(1):
        paths, cache = synthetic_clips(Path(directory), clips=clips, seconds=clip_seconds), Path(directory) / "cache"
        ways = {
            RELEASED: partial(_release_all, paths),
            PREPARE: partial(_prepare, paths, cache),
            READ: partial(_read_epoch, paths, cache),
        }
        seconds = interleaved(ways, rounds=rounds, clock=time.process_time)
    seconds[f"ours, each of {RELEASED_EPOCHS} epochs"] = tuple(
        prepare / RELEASED_EPOCHS + read for prepare, read in zip(seconds[PREPARE], seconds[READ], strict=True)
    )
    rows: list[Row] = [
        {"way": way, "clips_per_core_second": speed(clips, taken), "ratio": ratio(taken, seconds[RELEASED])}
        for way, taken in seconds.items()
    ]
    return Measurement("Front end: clips a second of one core", rows, "ratio: times the released code's speed")


def measure_preparation(*, clips: int = 96, clip_seconds: float = 10.0, rounds: int = 5) -> Measurement:
    """Compare the released code's front end, and whole preparations by one core and by all, by wall time."""
    cores = cpu_count()
    with tempfile.TemporaryDirectory() as directory, torch_threads(1):
        paths, cache = synthetic_clips(Path(directory), clips=clips, seconds=clip_seconds), Path(directory) / "cache"
        ways = {
            RELEASED: partial(_release_all, paths),
            ONE: partial(_prepare, paths, cache),
            THREADS.format(cores): partial(_prepare, paths, cache, workers=cores),
        }
        seconds = interleaved(ways, rounds=rounds)
    rows: list[Row] = [
        {
            "way": way,
            "clips_per_second": speed(clips, taken),
            "ratio": ratio(taken, seconds[RELEASED]),
            "scaling": ratio(taken, seconds[ONE]),
        }
        for way, taken in seconds.items()
    ]
    caption = "ratio: times the released code's speed on a core; scaling: times one thread's"
    return Measurement("Preparation: clips a second, by the clock", rows, caption)


def released_front_end(path: Path) -> Float[Tensor, "frame mel"]:
    """Return a clip's log-mel by way of 22.05 kHz, as `librosa.load` and then AST's loader give it.

    Source: the recipe in the paper's released code; librosa 0.10 for its loading: mean over channels, then soxr.
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


def synthetic_clips(root: Path, *, clips: int, seconds: float) -> list[Path]:
    """Write stereo OGG clips of decaying chords over noise; return their paths."""
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / f"{row:06d}_0.ogg" for row in range(clips)]
    for row, path in enumerate(paths):
        soundfile.write(path, _chords(row, seconds), _SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return paths


def _release_all(paths: list[Path]) -> None:
    for path in paths:
        released_front_end(path)


def _prepare(paths: list[Path], cache: Path, *, workers: int = 1) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    extract(paths, FrontEnd(), cache=cache, workers=workers)


def _read_epoch(paths: list[Path], cache: Path) -> None:
    labels = np.ones((len(paths), 1), np.float32)
    clips = Split(extract(paths, FrontEnd(), cache=cache).rows, np.arange(len(paths)), labels, labels > 0)
    for batch in np.array_split(np.arange(len(clips)), -(-len(clips) // _BATCH)):
        clips.batch(batch, torch.device("cpu"))


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
