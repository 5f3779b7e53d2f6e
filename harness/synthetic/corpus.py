"""The corpus that the built-in backbone is pre-trained on: random mixes of the 128 General MIDI programs.

Clip `index` of a split is composed from the seed (seed, split, index) alone. So a larger corpus begins with the
clips of a smaller one, and the held-out split shares no piece with the training split. Features are stored in
shards of `SHARD_CLIPS` clips, each renamed into place when it is complete, so an interrupted preparation resumes.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from harness.common.files import sha256_of
from harness.common.progress import Progress
from harness.features.audio import FRONT_END_VERSION
from harness.features.log_mel import FrontEnd, log_mel
from harness.synthetic.general_midi import PERCUSSION, PROGRAMS, TAGS
from harness.synthetic.music import Piece, Voice, compose
from harness.synthetic.render import SAMPLE_RATE, map_in_processes, render

CORPUS_VERSION = 1
"""Increases when the same seed gives other clips."""
SHARD_CLIPS = 64
CLIPS_PER_RENDERING = 16  # parsing a big SoundFont takes as long as rendering three clips
_CROWD_ODDS = (0.2, 0.35, 0.3, 0.15)  # of 1 to 4 melodic programs
_PERCUSSION_ODDS = 0.3

Split = Literal["train", "held-out"]
_SPLIT_SEEDS: dict[Split, int] = {"train": 0, "held-out": 1}


@dataclass(frozen=True)
class Corpus:
    """Log-mel features (not normalised) and tags of one split; `digest` covers both."""

    features: Float[np.ndarray, "clip frame mel"]
    tags: UInt8[np.ndarray, "clip tag"]
    digest: str

    def rows(
        self, rows: Int64[np.ndarray, " clip"]
    ) -> tuple[Float[Tensor, "clip frame mel"], Float[Tensor, "clip tag"]]:
        """Return the features and tags of some clips, in float32."""
        return torch.from_numpy(self.features[rows]).float(), torch.from_numpy(self.tags[rows]).float()


def prepare_corpus(
    soundfont: Path,
    front_end: FrontEnd,
    *,
    split: Split,
    n_clips: int,
    seed: int,
    cache: Path,
    workers: int,
    progress: Progress,
) -> Corpus:
    """Return `n_clips` clips of a split; render those that `cache` lacks.

    Raises:
        ValueError: `n_clips` is not a positive multiple of the shard size.
        FileNotFoundError: the SoundFont does not exist.
    """
    if n_clips < 1 or n_clips % SHARD_CLIPS:
        raise ValueError(f"{split} clips={n_clips}: must be a positive multiple of {SHARD_CLIPS}")
    key = f"v{CORPUS_VERSION}-{sha256_of(soundfont)}-{front_end}-{FRONT_END_VERSION}-{seed}-{split}"
    folder = cache / "pretraining" / f"{split}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = [folder / f"{index:05}.npz" for index in range(n_clips // SHARD_CLIPS)]
    missing = [index for index, shard in enumerate(shards) if not shard.exists()]
    write = partial(_write_shard, soundfont=soundfont, front_end=front_end, split=split, seed=seed, folder=folder)
    if missing:
        written = map_in_processes(write, missing, workers=workers, initializer=partial(torch.set_num_threads, 1))
        for _ in progress(written, total=len(missing), label=f"{split} shards"):
            pass
    return _read_shards(shards)


def draw_clip(rng: np.random.Generator) -> tuple[Piece, UInt8[np.ndarray, " tag"]]:
    """Compose one clip and return it with its tags; every program is as likely as every other."""
    crowd = 1 + int(rng.choice(len(_CROWD_ODDS), p=_CROWD_ODDS))
    programs = [PROGRAMS[number] for number in rng.choice(PERCUSSION, crowd, replace=False)]
    voices = [Voice(program.number, program.low, program.high, program.roles) for program in programs]
    if rng.random() < _PERCUSSION_ODDS:
        voices.append(Voice(PERCUSSION, 0, 127, ("kit", "kit", "drums", "cymbals", "hand")))
    tags = np.zeros(len(TAGS), np.uint8)
    tags[[voice.program for voice in voices]] = 1
    return compose(rng, voices), tags


def _write_shard(index: int, *, soundfont: Path, front_end: FrontEnd, split: Split, seed: int, folder: Path) -> None:
    rows = range(index * SHARD_CLIPS, (index + 1) * SHARD_CLIPS)
    clips = [draw_clip(np.random.default_rng((seed, _SPLIT_SEEDS[split], row))) for row in rows]
    pieces = [piece for piece, _ in clips]
    sounds = [
        sound
        for first in range(0, SHARD_CLIPS, CLIPS_PER_RENDERING)
        for sound in render(_bytes_of(soundfont), pieces[first : first + CLIPS_PER_RENDERING])
    ]
    features = np.stack([log_mel(sound[:, None], SAMPLE_RATE, front_end).numpy() for sound in sounds])
    unfinished = folder / f"{index:05}.{os.getpid()}.tmp.npz"
    np.savez(unfinished, features=features.astype(np.float16), tags=np.stack([tags for _, tags in clips]))
    unfinished.replace(folder / f"{index:05}.npz")


@lru_cache(maxsize=1)
def _bytes_of(soundfont: Path) -> bytes:
    return soundfont.read_bytes()


def _read_shards(shards: list[Path]) -> Corpus:
    features, tags, digest = [], [], hashlib.sha256()
    for shard in shards:
        with np.load(shard, allow_pickle=False) as arrays:
            features.append(arrays["features"])
            tags.append(arrays["tags"])
        digest.update(features[-1].tobytes())
        digest.update(tags[-1].tobytes())
    return Corpus(np.concatenate(features), np.concatenate(tags), digest.hexdigest())
