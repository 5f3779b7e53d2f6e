"""What the demo set contains: who plays in which clip, and what an annotator was asked about it.

The 20 instruments of OpenMIC-2018 stand for General MIDI programs and percussion keys. General MIDI lacks
two: a mandolin is imitated by the steel-string guitar with double courses (each note twice, some cents
apart), picked as a tremolo in a high register; a ukulele by the nylon-string guitar, strummed within the
ukulele's register.

Every artist favours some instruments and has a sound of its own (spectral tilt, noise floor). The test clips
are by other artists than the training clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from harness.data.composer import Piece, compose
from harness.data.general_midi import PERCUSSION
from harness.data.roles import Voice


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
"""Every instrument leads in one test clip at least, and a quarter of the clips are for the test."""
CLIP_SECONDS = 10.0
_CROWD_ODDS = (0.15, 0.35, 0.3, 0.2)  # of 1 to 4 instruments
_CLIPS_PER_ARTIST = 8
_OBSERVED_SHARE, _POSITIVE_SHARE = 0.1, 0.44  # of all labels, of the observed ones; as in OpenMIC-2018


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
    """One clip: its key, its artist, who plays (label indices, leader first) and the seed of its music."""

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
    """Targets in [0, 1] (0.5 where nobody was asked) and which labels someone was asked about."""

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
    """Return who plays: whether an instrument has a part in a clip, however soft."""
    return np.array([[label in plan.instruments for label in range(len(LABELS))] for plan in plans])


def annotate(plans: Sequence[ClipPlan], seed: int) -> Annotations:
    """Draw the labels that someone was asked about, and the answers.

    Of every instrument about one label in ten is observed in each part, positive and negative; every clip has
    one observed label at least. Answers are soft, on the right side of 0.5.
    """
    rng = np.random.default_rng((seed, 1))
    plays = truth(plans)
    is_test = np.array([plan.artist.is_test for plan in plans])
    observed = np.zeros_like(plays)
    for row, plan in enumerate(plans):
        absent = np.flatnonzero(~plays[row])
        observed[row, plan.instruments[0] if rng.random() < _POSITIVE_SHARE else rng.choice(absent)] = True
    for part in (is_test, ~is_test):
        wanted = _OBSERVED_SHARE * part.sum()
        for label, plays_label in enumerate(plays.T):
            for among, share in ((plays_label, _POSITIVE_SHARE), (~plays_label, 1 - _POSITIVE_SHARE)):
                _top_up(rng, observed[:, label], among=part & among, wanted=round(wanted * share))
    doubt = np.maximum(0, rng.uniform(-0.4, 0.4, plays.shape))  # half of the answers are unanimous
    return Annotations(np.where(observed, np.abs(plays - doubt), 0.5), observed)


def _draw_artist(rng: np.random.Generator, name: str, *, is_test: bool) -> Artist:
    odds = rng.dirichlet(np.full(len(LABELS), 0.7)) + 0.01
    return Artist(
        name=name,
        odds=odds / odds.sum(),
        tilt=float(rng.uniform(-0.5, 0.5)),
        noise_db=float(rng.uniform(-70, -40)),
        is_test=is_test,
    )


def _draw_clip(rng: np.random.Generator, row: int, *, artist: Artist, leader: int, seed: int) -> ClipPlan:
    n_others = int(rng.choice(len(_CROWD_ODDS), p=_CROWD_ODDS))
    odds = artist.odds.copy()
    odds[leader] = 0
    others = rng.choice(len(LABELS), n_others, replace=False, p=odds / odds.sum())
    return ClipPlan(f"{row:06}_0", artist, (leader, *others.tolist()), seed=(seed, 2, row))


def _top_up(
    rng: np.random.Generator, observed: Bool[np.ndarray, " clip"], *, among: Bool[np.ndarray, " clip"], wanted: int
) -> None:
    """Observe further clips `among` those given, in place, until `wanted` of them are."""
    lacking = wanted - int((among & observed).sum())
    observed[rng.permutation(np.flatnonzero(among & ~observed))[: max(0, lacking)]] = True
