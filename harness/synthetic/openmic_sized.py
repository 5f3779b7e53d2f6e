"""A data set of OpenMIC-2018's size and layout: 20,000 synthetic clips, to rehearse work on the real one.

A small pool of rendered clips has 20,000 names, as hard links: 40 MB in all instead of 2.6 GB. Keys, splits and
annotations are as many as in OpenMIC-2018 v1.0.0, for each instrument and answer. A clip's sound fits its annotations
as well as the pool allows, so a study can learn from it. The VGGish features are noise. The ten tracks with known
damage are included, and half of their clips are damaged. A marker file keeps reports from comparing the results with
published ones.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Bool, Float, Int

from harness.common.files import make_directory
from harness.common.progress import Progress
from harness.config.literature import LABEL_COUNTS
from harness.data.openmic import CORRUPTED_TRACKS, NPZ, audio_name, write_tables
from harness.synthetic.demo import LABELS, MIN_CLIPS, ClipPlan, default_soundfont, plan_clips, truth
from harness.synthetic.render import SAMPLE_RATE, map_in_processes, render

NAME = "openmic-2018-stand-in"
FULL_SIZE = 20_000
_N_TEST = 5_085
_LAST_TRACK = 155_000
_CLIPS_PER_ARTIST = 4
_KINDS = ((44_100, 2), (44_100, 2), (48_000, 2), (22_050, 1))
"""Sample rates and channels of the pool's clips, in turn. OpenMIC-2018 does not document its own."""
_ANSWERS = {label: astuple(counts) for label, counts in LABEL_COUNTS.items()}
_MARKER = "STAND-IN.txt"
_MARKER_TEXT = """\
This is a stand-in of OpenMIC-2018: its clips are synthetic, its annotations random. No result on it is comparable with
anything published. Leave this file here: it keeps reports from comparing them.
"""

Answers = Int[np.ndarray, "clip label"]


def is_stand_in(root: Path) -> bool:
    """Return whether the data set in a directory only has the shape of OpenMIC-2018."""
    return (root / _MARKER).exists()


def write_stand_in(
    to: Path, *, n_clips: int = FULL_SIZE, pool_size: int = MIN_CLIPS, seed: int, workers: int, progress: Progress
) -> Path:
    """Write the data set as `to/openmic-2018-stand-in`, whole or not at all; return where it is.

    Raises:
        FileExistsError: the place is taken.
        ValueError: there are too few clips for every instrument to sound in both splits.
    """
    root = to / NAME
    if root.exists():
        raise FileExistsError(f"{root}: is there already; remove it, or choose another directory")
    if n_clips < 10 * len(LABELS):
        raise ValueError(f"clips={n_clips}: must be at least {10 * len(LABELS)}, ten for each instrument")
    make_directory(to)
    with tempfile.TemporaryDirectory(dir=to, prefix=f".unfinished-{NAME}-") as scratch:
        unfinished = Path(scratch) / NAME
        pool = plan_clips(max(pool_size, MIN_CLIPS), seed)[:pool_size]
        sounds = [Path(scratch) / f"{row}.ogg" for row in range(len(pool))]
        rendered = map_in_processes(_render, list(zip(pool, sounds, strict=True)), workers=workers, at_once=4)
        for _ in progress(rendered, total=len(pool), label="rendering the pool"):
            pass
        _write(unfinished, sounds, truth(pool), n_clips=n_clips, seed=seed, progress=progress)
        unfinished.rename(root)
    return root


def draw_keys(n_clips: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw keys like those of the Free Music Archive's tracks, in order, the corrupted tracks among them."""
    corrupted = sorted(int(track) for track in CORRUPTED_TRACKS)
    others = np.setdiff1d(np.arange(1, _LAST_TRACK), corrupted)
    tracks = np.sort(np.concatenate([corrupted, rng.choice(others, n_clips - len(corrupted), replace=False)]))
    starts = 3840 * rng.integers(0, 80, n_clips)  # in ms, a multiple of 3.84 s
    return tuple(f"{track:06}_{start}" for track, start in zip(tracks, starts, strict=True))


def draw_answers(is_test: Bool[np.ndarray, " clip"], rng: np.random.Generator) -> Answers:
    """Draw the answers: 1 for a positive, -1 for a negative, 0 where the label is not observed.

    Each split has its share of OpenMIC-2018's answers of each kind, and each clip at least one answer.
    """
    answers = np.zeros((len(is_test), len(LABELS)), np.int64)
    for rows, first in ((np.flatnonzero(~is_test), 0), (np.flatnonzero(is_test), 2)):
        share = len(is_test) / FULL_SIZE
        wanted = [max(1, round(share * _ANSWERS[label][first + side])) for label in LABELS for side in (0, 1)]
        kinds = np.repeat(np.arange(len(wanted)), wanted)
        given = rng.permutation(kinds)[: len(rows)]  # one to each clip
        answers[rng.permutation(rows)[: len(given)], given // 2] = 1 - 2 * (given % 2)
        left = np.array(wanted) - np.bincount(given, minlength=len(wanted))
        for kind in np.flatnonzero(left):
            free = rows[answers[rows, kind // 2] == 0]
            answers[rng.choice(free, left[kind], replace=False), kind // 2] = 1 - 2 * (kind % 2)
    return answers


def _write(
    root: Path,
    sounds: Sequence[Path],
    plays: Bool[np.ndarray, "sound label"],
    *,
    n_clips: int,
    seed: int,
    progress: Progress,
) -> None:
    rng = np.random.default_rng((seed, 3))
    keys = draw_keys(n_clips, rng)
    is_test = rng.permutation(n_clips) < round(_N_TEST * n_clips / FULL_SIZE)
    answers = draw_answers(is_test, rng)
    doubt = np.maximum(0, rng.uniform(-0.49, 0.49, answers.shape))  # half of the answers are certain
    targets: Float[np.ndarray, "clip label"] = 0.5 + answers * (0.5 - doubt)
    artist = rng.integers(0, max(1, n_clips // _CLIPS_PER_ARTIST), n_clips)
    artists = [f"Artist {2 * number + side:06}" for number, side in zip(artist, is_test, strict=True)]  # of one split
    root.mkdir()
    (root / _MARKER).write_text(_MARKER_TEXT)
    write_tables(root, LABELS, keys, targets=targets, observed=answers != 0, is_test=is_test.tolist(), artists=artists)
    np.savez_compressed(
        root / NPZ,
        X=rng.integers(0, 256, (n_clips, 10, 128), dtype=np.uint8),
        Y_true=targets,
        Y_mask=answers != 0,
        sample_key=np.array(keys, dtype=object),  # as the official file has it
    )
    fits = answers @ plays.T + rng.random((n_clips, len(sounds)))
    chosen = [sounds[index] for index in fits.argmax(axis=1)]
    for key, sound in progress(zip(keys, chosen, strict=True), total=n_clips, label="clips"):
        _link(root / "audio" / audio_name(key), sound)
    for row, key in enumerate(key for key in keys if key[:6] in CORRUPTED_TRACKS):
        if row % 2:
            _damage(root / "audio" / audio_name(key), is_cut=row % 4 == 1)


def _render(task: tuple[ClipPlan, Path]) -> None:
    """Write one planned clip as OGG Vorbis."""
    plan, path = task
    (music,) = render(default_soundfont(), [plan.piece()])
    sample_rate, channels = _KINDS[plan.seed[-1] % len(_KINDS)]
    sound = soxr.resample(music, SAMPLE_RATE, sample_rate)
    noise = 1e-3 * np.random.default_rng(plan.seed).standard_normal((len(sound), channels))
    loud = 0.8 * sound[:, None] / np.abs(sound).max() + noise
    soundfile.write(path, loud.astype(np.float32), sample_rate, format="OGG", subtype="VORBIS")


def _link(path: Path, sound: Path) -> None:
    """Give the sound one more name; copy it where the file system refuses another link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.hardlink_to(sound)
    except OSError:
        shutil.copyfile(sound, path)


def _damage(path: Path, *, is_cut: bool) -> None:
    """Cut a clip short or replace it by text; the file's other names stay whole."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2] if is_cut else b"not sound\n" * 100)
