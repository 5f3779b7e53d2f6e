"""The demo data set: draw its clips and labels, render them, and write them in OpenMIC-2018's layout."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Bool, Float, Int16

from harness.common.progress import Progress
from harness.data.dataset import POSITIVE, ClipDataset
from harness.data.openmic import write_tables
from harness.synthetic.general_midi import PERCUSSION
from harness.synthetic.music import Piece, Voice, compose
from harness.synthetic.render import SAMPLE_RATE, map_in_processes, render


def _voices(programs: tuple[int, ...], low: int, high: int, roles: str, courses: int = 1) -> tuple[Voice, ...]:
    return tuple(Voice(program, low, high, tuple(roles.split()), courses) for program in programs)


INSTRUMENTS: dict[str, tuple[Voice, ...]] = {
    "accordion": _voices((21, 23), 53, 86, "melody chords"),
    "banjo": _voices((105,), 48, 86, "roll roll melody"),
    "bass": _voices((32, 33, 34, 35, 36), 28, 55, "bass"),
    "cello": _voices((42,), 36, 69, "melody pad"),
    "clarinet": _voices((71,), 50, 89, "melody"),
    "cymbals": _voices((PERCUSSION,), 0, 127, "cymbals"),
    "drums": _voices((PERCUSSION,), 0, 127, "drums"),
    "flute": _voices((73,), 60, 94, "melody"),
    "guitar": _voices((24, 25, 26, 27, 29, 30), 40, 78, "strum arpeggio melody"),
    "mallet_percussion": _voices((9, 11, 12, 13), 55, 96, "melody arpeggio"),
    "mandolin": _voices((25,), 62, 93, "tremolo tremolo strum", courses=2),
    "organ": _voices((16, 17, 18, 19, 20), 41, 84, "chords pad melody"),
    "piano": _voices((0, 1, 2, 3), 36, 90, "chords arpeggio melody"),
    "saxophone": _voices((64, 65, 66, 67), 44, 82, "melody"),
    "synthesizer": _voices((80, 81, 84, 87, 88, 90, 95), 43, 86, "melody arpeggio pad"),
    "trombone": _voices((57,), 40, 72, "melody"),
    "trumpet": _voices((56, 59), 55, 84, "melody"),
    "ukulele": _voices((24,), 60, 83, "strum"),
    "violin": _voices((40,), 55, 96, "melody pad"),
    "voice": _voices((52, 53, 54), 48, 79, "pad melody"),
}

LABELS = tuple(INSTRUMENTS)
MIN_CLIPS = 4 * len(LABELS)
"""With fewer clips some instrument would lead in no test clip: a quarter of the clips are test clips."""
DEMO_VERSION = 1
"""Increases when the same size and seed give other clips or labels."""
DEFAULT_CLIPS = 480
DEMO_SAMPLE_RATE = 16_000
CLIP_SECONDS = 10.0
_CROWD_ODDS = (0.15, 0.35, 0.3, 0.2)  # of 1 to 4 instruments
_CLIPS_PER_ARTIST = 8
_OBSERVED_SHARE, _POSITIVE_SHARE = 0.1, 0.44  # of all labels, of the observed ones; as in OpenMIC-2018
_LOG_MEL_FLOOR, _LOG_MEL_CEILING = -16.0, 8.0  # stored as 0 and 255 in X


@dataclass(frozen=True)
class Artist:
    """One artist: the odds of its instruments, its sound, and whether its clips are test clips.

    `tilt` is the weight of the previous sample in each (above 0: darker); `noise_db` is relative to the peak.
    """

    name: str
    odds: Float[np.ndarray, " label"]
    tilt: float
    noise_db: float
    is_test: bool


@dataclass(frozen=True)
class ClipPlan:
    """One clip: its key, artist, instruments (label indices, the leader first) and the seed of its music."""

    key: str
    artist: Artist
    instruments: tuple[int, ...]
    seed: tuple[int, ...]

    def piece(self) -> Piece:
        """Compose the clip."""
        rng = np.random.default_rng(self.seed)
        choices = [INSTRUMENTS[LABELS[index]] for index in self.instruments]
        return compose(rng, [voices[rng.integers(len(voices))] for voices in choices], seconds=CLIP_SECONDS)


@dataclass(frozen=True)
class Annotations:
    """Targets in [0, 1] (0.5 where the label is not observed) and the mask of observed labels."""

    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]


def plan_clips(n_clips: int, seed: int) -> list[ClipPlan]:
    """Draw all clips, three quarters for training, then those for the test; instruments lead equally often.

    Raises:
        ValueError: too few clips for every instrument to lead in the test part.
    """
    if n_clips < MIN_CLIPS:
        raise ValueError(f"demo clips={n_clips}: must be at least {MIN_CLIPS}, four for each instrument")
    rng = np.random.default_rng((seed, 0))
    plans: list[ClipPlan] = []
    for is_test, size in ((False, n_clips - n_clips // 4), (True, n_clips // 4)):
        leaders = np.concatenate([rng.permutation(len(LABELS)) for _ in range(0, size, len(LABELS))])[:size]
        for first in range(0, size, _CLIPS_PER_ARTIST):
            artist = _draw_artist(rng, f"Artist {len(plans):06}", is_test=is_test)
            for leader in leaders[first : first + _CLIPS_PER_ARTIST].tolist():
                plans.append(_draw_clip(rng, len(plans), artist=artist, leader=leader, seed=seed))
    return plans


def truth(plans: Sequence[ClipPlan]) -> Bool[np.ndarray, "clip label"]:
    """Return which instruments have a part in each clip, however soft."""
    return np.array([[label in plan.instruments for label in range(len(LABELS))] for plan in plans])


def annotate(plans: Sequence[ClipPlan], seed: int) -> Annotations:
    """Draw the observed labels and their answers, which are soft and on the right side of 0.5.

    In each part about one label in ten of every instrument is observed, both positive and negative. Every clip has
    at least one observed label.
    """
    rng = np.random.default_rng((seed, 1))
    plays = truth(plans)
    is_test = np.array([plan.artist.is_test for plan in plans])
    observed = np.zeros_like(plays)
    for row, plan in enumerate(plans):
        absent = np.flatnonzero(~plays[row])
        observed[row, plan.instruments[0] if rng.random() < _POSITIVE_SHARE else rng.choice(absent)] = True
    for part in (is_test, ~is_test):
        n_observed = _OBSERVED_SHARE * part.sum()
        for label, plays_label in enumerate(plays.T):
            for among, share in ((plays_label, _POSITIVE_SHARE), (~plays_label, 1 - _POSITIVE_SHARE)):
                _top_up(rng, observed[:, label], among=part & among, n=round(n_observed * share))
    doubt = np.maximum(0, rng.uniform(-0.4, 0.4, plays.shape))  # half of the answers are unanimous
    return Annotations(np.where(observed, np.abs(plays - doubt), 0.5), observed)


def _draw_artist(rng: np.random.Generator, name: str, *, is_test: bool) -> Artist:
    odds = rng.dirichlet(np.full(len(LABELS), 0.7)) + 0.01
    tilt, noise_db = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-70, -40))
    return Artist(name, odds / odds.sum(), tilt, noise_db, is_test)


def _draw_clip(rng: np.random.Generator, row: int, *, artist: Artist, leader: int, seed: int) -> ClipPlan:
    n_others = int(rng.choice(len(_CROWD_ODDS), p=_CROWD_ODDS))
    odds = artist.odds.copy()
    odds[leader] = 0
    others = rng.choice(len(LABELS), n_others, replace=False, p=odds / odds.sum())
    return ClipPlan(f"{row:06}_0", artist, (leader, *others.tolist()), seed=(seed, 2, row))


def _top_up(
    rng: np.random.Generator, observed: Bool[np.ndarray, " clip"], *, among: Bool[np.ndarray, " clip"], n: int
) -> None:
    """Mark further clips `among` those given as observed, in place, until `n` of them are."""
    lacking = n - int((among & observed).sum())
    observed[rng.permutation(np.flatnonzero(among & ~observed))[: max(0, lacking)]] = True


_README = """\
# The demo set of the reprogramming harness

{n_clips} clips of 10 s: random pieces for 1 to 4 of OpenMIC-2018's 20 instruments, rendered with the
SoundFont TimGM6mb (by Tim Brechbill, GPL-2.0) by `harness.synthetic.demo`, version {version}, seed {seed}. The
layout is OpenMIC-2018's. Differences:

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
    """Return the root of the demo set of this size and seed; render it unless the cache holds it.

    Two processes may render at once: both use the set of the first to finish.

    Raises:
        ValueError: `n_clips` is too small.
    """
    root = cache / "demo" / f"v{DEMO_VERSION}-{n_clips}-{seed}"
    if root.is_dir():  # a set gets this name when it is complete
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
    """Return the digest of a rendered demo set, recorded when it was rendered."""
    record: dict[str, str] = json.loads((root / "demo.json").read_text())
    return record["digest"]


def demo_truth(dataset: ClipDataset) -> Bool[np.ndarray, "clip label"]:
    """Return which instruments play in each clip of a rendered demo set, observed or not.

    Raises:
        ValueError: the same size and seed draw other clips today than when the set was rendered.
    """
    record = json.loads((dataset.root / "demo.json").read_text())
    plans = plan_clips(record["n_clips"], record["seed"])
    plays = truth(plans)
    is_as_planned = dataset.keys == tuple(plan.key for plan in plans)
    if not is_as_planned or ((dataset.targets >= POSITIVE) != plays)[dataset.observed].any():
        raise ValueError(
            f"{dataset.root}: its annotations differ from the clips drawn today, so its true labels are unknown; "
            "remove it to render it again"
        )
    return plays


def write_demo(root: Path, plans: Sequence[ClipPlan], *, seed: int, workers: int, progress: Progress) -> None:
    """Render the planned clips and write the data set below `root`, which must not exist."""
    for folder in sorted({_audio_path(root, plan).parent for plan in plans}):
        folder.mkdir(parents=True)
    annotations = annotate(plans, seed)
    keys, artists = [plan.key for plan in plans], [plan.artist for plan in plans]
    labelled = "\n".join(f"{plan.key},{plan.artist.name},{plan.artist.is_test}" for plan in plans)
    digest = hashlib.sha256(labelled.encode())
    digest.update(annotations.targets.astype("<f8").tobytes() + annotations.observed.tobytes())
    seconds = []
    written = map_in_processes(partial(_write_audio, root), plans, workers=workers, at_once=4)
    for pcm in progress(written, total=len(plans), label="rendering the demo set"):
        digest.update(hashlib.sha256(pcm.astype("<i2").tobytes()).digest())
        seconds.append(_mean_log_mel(pcm.astype(np.float32) / 32768))
    np.savez_compressed(
        root / "openmic-2018.npz",
        X=np.stack(seconds),
        Y_true=annotations.targets,
        Y_mask=annotations.observed,
        sample_key=np.array(keys),
    )
    write_tables(
        root,
        LABELS,
        keys,
        targets=annotations.targets,
        observed=annotations.observed,
        is_test=[artist.is_test for artist in artists],
        artists=[artist.name for artist in artists],
    )
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


def _write_audio(root: Path, plan: ClipPlan) -> Int16[np.ndarray, " sample"]:
    """Write one clip and return its samples."""
    pcm = render_clip(plan, default_soundfont())
    soundfile.write(_audio_path(root, plan), pcm, DEMO_SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return pcm


@lru_cache(maxsize=1)
def default_soundfont() -> bytes:
    """Return TimGM6mb, as pretty_midi ships it."""
    return (resources.files("pretty_midi") / "TimGM6mb.sf2").read_bytes()


def _mean_log_mel(samples: Float[np.ndarray, " sample"]) -> np.ndarray:
    """Return the mean of 128 log-mel bands over each second, as bytes (second, band)."""
    # rendering processes import this file and need no torch, which takes seconds to import
    from harness.features.log_mel import FrontEnd, log_mel  # noqa: PLC0415

    front_end = FrontEnd(window_ms=50, hop_ms=40, n_frames=250)
    frames = log_mel(samples[:, None], DEMO_SAMPLE_RATE, front_end).numpy()[:249]  # the 250th is padding
    means = np.stack([second.mean(axis=0) for second in np.array_split(frames, 10)])
    scaled = (means - _LOG_MEL_FLOOR) / (_LOG_MEL_CEILING - _LOG_MEL_FLOOR)
    as_bytes: np.ndarray = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return as_bytes


def _audio_path(root: Path, plan: ClipPlan) -> Path:
    return root / "audio" / plan.key[:3] / f"{plan.key}.ogg"


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
