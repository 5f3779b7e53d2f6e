"""The demo data set: rendered music in OpenMIC-2018's own disk layout, made once and kept in the cache.

    root = ensure_demo(cache_dir(), workers=2, progress=track)
    dataset = read_dataset(root)

The SoundFont is TimGM6mb, which pretty_midi ships. The same size and seed give the same `digest` in
`demo.json`, which `demo_digest` reads: it is over the samples before compression, the labels and the partition
(the OGG files differ in a serial number).
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Bool, Float, Int16

from harness.data.demo_plan import LABELS, Annotations, ClipPlan, annotate, plan_clips, truth
from harness.data.frontend import FrontEnd, log_mel
from harness.data.layout_files import write_tables
from harness.data.openmic import POSITIVE, ClipDataset
from harness.data.processes import map_in_processes
from harness.data.progress import Progress
from harness.data.renderer import SAMPLE_RATE, render

DEMO_VERSION = 1
"""Goes up when the same size and seed start to give other clips or labels."""
DEFAULT_CLIPS = 800
DEMO_SAMPLE_RATE = 16_000
_LOG_MEL_FLOOR, _LOG_MEL_CEILING = -16.0, 8.0  # what 0 and 255 stand for in X

_README = """\
# The demo set of the reprogramming harness

{n_clips} clips of 10 s: random pieces for 1 to 4 of OpenMIC-2018's 20 instruments, rendered with the
SoundFont TimGM6mb (by Tim Brechbill, GPL-2.0) by `harness.data.demo`, version {version}, seed {seed}. The
layout is OpenMIC-2018's. What differs:

- `X` in `openmic-2018.npz` is not VGGish: it holds, for each second, the mean of each of 128 log-mel bands,
  with {floor} to {ceiling} (natural-log energy) scaled to 0 to 255. There is no folder `vggish`.
- General MIDI has no mandolin and no ukulele. The mandolin is a steel-string guitar with double courses,
  picked as a tremolo in a high register; the ukulele is a nylon-string guitar, strummed in the ukulele's
  register.
- The artists are invented: each favours some instruments and has its own spectral tilt and noise floor. Train
  and test clips are by different artists.
- Every answer is right: an observed label of 0.5 or more means that the instrument has a part in the clip,
  however soft.
"""


def ensure_demo(cache: Path, *, n_clips: int = DEFAULT_CLIPS, seed: int = 0, workers: int, progress: Progress) -> Path:
    """Return the root of the demo set of this size and seed, rendering it unless the cache holds it whole.

    Two processes may do so at once: the first to finish provides it to both.

    Raises:
        ValueError: `n_clips` is too small.
    """
    root = cache / "demo" / f"v{DEMO_VERSION}-{n_clips}-{seed}"
    if root.is_dir():  # it gets this name only when it is whole
        return root
    plans = plan_clips(n_clips, seed)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f"unfinished-{root.name}-") as scratch:
        unfinished = Path(scratch) / root.name
        write_demo(unfinished, plans, seed=seed, workers=workers, progress=progress)
        try:
            unfinished.rename(root)
        except OSError:
            if not root.is_dir():
                raise
    return root


def demo_digest(root: Path) -> str:
    """Return the digest of a rendered demo set, as it was noted when it was rendered."""
    record: dict[str, str] = json.loads((root / "demo.json").read_text())
    return record["digest"]


def demo_truth(dataset: ClipDataset) -> Bool[np.ndarray, "clip label"]:
    """Return who plays in each clip of a rendered demo set, whether or not someone was asked.

    Raises:
        ValueError: the same size and seed draw other clips today than when the set was rendered.
    """
    record = json.loads((dataset.root / "demo.json").read_text())
    plans = plan_clips(record["n_clips"], record["seed"])
    plays = truth(plans)
    is_as_planned = dataset.keys == tuple(plan.key for plan in plans)
    if not is_as_planned or ((dataset.targets >= POSITIVE) != plays)[dataset.observed].any():
        raise ValueError(
            f"{dataset.root}: its annotations do not fit the clips drawn today, so its true labels are not known; "
            "remove it to render it anew"
        )
    return plays


def write_demo(root: Path, plans: Sequence[ClipPlan], *, seed: int, workers: int, progress: Progress) -> None:
    """Render the planned clips and write the data set below `root`, which must not exist."""
    for folder in sorted({_audio_path(root, plan).parent for plan in plans}):
        folder.mkdir(parents=True)
    annotations = annotate(plans, seed)
    digest = hashlib.sha256(_labels_in_bytes(plans, annotations))
    seconds = []
    written = map_in_processes(partial(_write_audio, root), plans, workers=workers, at_once=4)
    for pcm_digest, mean_log_mel in progress(written, total=len(plans), label="rendering the demo set"):
        digest.update(pcm_digest)
        seconds.append(mean_log_mel)
    np.savez_compressed(
        root / "openmic-2018.npz",
        X=np.stack(seconds),
        Y_true=annotations.targets,
        Y_mask=annotations.observed,
        sample_key=np.array([plan.key for plan in plans]),
    )
    _write_tables(root, plans, annotations)
    _write_notes(root, n_clips=len(plans), seed=seed, digest=digest.hexdigest())


def render_clip(plan: ClipPlan, soundfont: bytes) -> Int16[np.ndarray, " sample"]:
    """Return the clip as 16-bit samples at 16 kHz: music in its artist's sound, at a peak of -9 to -1 dB."""
    rng = np.random.default_rng((*plan.seed, 1))
    (music,) = render(soundfont, [plan.piece()])
    sound = soxr.resample(music, SAMPLE_RATE, DEMO_SAMPLE_RATE)
    sound = sound + plan.artist.tilt * np.concatenate([[0.0], sound[:-1]])
    sound = sound / np.abs(sound).max() + 10 ** (plan.artist.noise_db / 20) * rng.standard_normal(len(sound))
    peak = 10 ** (rng.uniform(-9, -1) / 20)
    pcm: np.ndarray = np.round(32767 * peak * sound / np.abs(sound).max()).astype(np.int16)
    return pcm


def _write_audio(root: Path, plan: ClipPlan) -> tuple[bytes, np.ndarray]:
    """Write one clip; return the digest of its samples and its mean log-mel by second, for X."""
    pcm = render_clip(plan, default_soundfont())
    soundfile.write(_audio_path(root, plan), pcm, DEMO_SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return hashlib.sha256(pcm.astype("<i2").tobytes()).digest(), _mean_log_mel(pcm.astype(np.float32) / 32768)


@lru_cache(maxsize=1)
def default_soundfont() -> bytes:
    """Return TimGM6mb, as pretty_midi ships it."""
    return (resources.files("pretty_midi") / "TimGM6mb.sf2").read_bytes()


def _mean_log_mel(samples: Float[np.ndarray, " sample"]) -> np.ndarray:
    """Return the mean of 128 log-mel bands over each second, as bytes (second, band)."""
    front_end = FrontEnd(window_ms=50, hop_ms=40, n_frames=250)
    frames = log_mel(samples[:, None], DEMO_SAMPLE_RATE, front_end).numpy()[:249]  # the 250th is padding
    means = np.stack([second.mean(axis=0) for second in np.array_split(frames, 10)])
    scaled = (means - _LOG_MEL_FLOOR) / (_LOG_MEL_CEILING - _LOG_MEL_FLOOR)
    as_bytes: np.ndarray = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return as_bytes


def _audio_path(root: Path, plan: ClipPlan) -> Path:
    return root / "audio" / plan.key[:3] / f"{plan.key}.ogg"


def _labels_in_bytes(plans: Sequence[ClipPlan], annotations: Annotations) -> bytes:
    clips = "\n".join(f"{plan.key},{plan.artist.name},{plan.artist.is_test}" for plan in plans)
    return clips.encode() + annotations.targets.astype("<f8").tobytes() + annotations.observed.tobytes()


def _write_tables(root: Path, plans: Sequence[ClipPlan], annotations: Annotations) -> None:
    write_tables(
        root,
        LABELS,
        [plan.key for plan in plans],
        targets=annotations.targets,
        observed=annotations.observed,
        is_test=[plan.artist.is_test for plan in plans],
        artists=[plan.artist.name for plan in plans],
    )


def _write_notes(root: Path, *, n_clips: int, seed: int, digest: str) -> None:
    text = _README.format(
        n_clips=n_clips, seed=seed, version=DEMO_VERSION, floor=_LOG_MEL_FLOOR, ceiling=_LOG_MEL_CEILING
    )
    (root / "README.md").write_text(text)
    record = {
        "digest": digest,
        "version": DEMO_VERSION,
        "n_clips": n_clips,
        "seed": seed,
        "soundfont_sha256": hashlib.sha256(default_soundfont()).hexdigest(),
        "midirenderer": version("midirenderer"),
        "numpy": version("numpy"),
    }
    (root / "demo.json").write_text(json.dumps(record, indent=2) + "\n")
