"""The request for an evaluation, checked before anything heavy is imported: studies, seeds, choice and name."""

import hashlib
from dataclasses import dataclass

from harness.config.study import StudyPlace, StudySpec
from harness.training.metrics import METRICS, OF_RECORD

_LONGEST_NAME = 80


@dataclass(frozen=True)
class Request:
    """The best `top` configurations of each system of each study by validation `by`, retrained with `seeds` seeds.

    `systems` limits the systems. `skips_corrupt` leaves out unreadable test clips, which a study of a fraction may not
    have met. `name` is the evaluation's; without it the name comes from all studies.
    """

    studies: tuple[StudyPlace, ...]
    top: int = 1
    seeds: int = 10
    systems: tuple[str, ...] | None = None
    by: str = OF_RECORD
    name: str | None = None
    skips_corrupt: bool = False

    def __post_init__(self) -> None:
        """Check the numbers and the figure of choice."""
        for flag in ("top", "seeds"):
            if getattr(self, flag) < 1:
                raise ValueError(f"{flag}={getattr(self, flag)}: must be at least 1")
        if self.by not in METRICS:
            raise ValueError(f"by={self.by!r}: selection is on validation only, by one of {', '.join(METRICS)}")

    @property
    def place(self) -> StudyPlace:
        """Return the place of the evaluation, beside its first study.

        Raises:
            ValueError: a study has the name.
        """
        first = self.studies[0]
        name = self.name or default_name([place.home.name for place in self.studies])
        place = StudyPlace(first.home.parent / name, f"{first.shared.rpartition('/')[0]}/{name}")
        if place.spec_file.exists():
            raise ValueError(f"name={name}: a study has this name; give the evaluation another --name")
        return place

    def read_sources(self) -> dict[str, StudySpec]:
        """Return the studies by name.

        Raises:
            FileNotFoundError: there is no such study; the message names those that exist.
        """
        return {place.home.name: _read_source(place) for place in self.studies}


def default_name(studies: list[str]) -> str:
    """Return the name of an evaluation of these studies: the same in any order, and another for another set."""
    names = sorted(set(studies))
    joined = "-".join(names)
    if len(joined) > _LONGEST_NAME:
        digest = hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]
        joined = f"{names[0][:_LONGEST_NAME]}-and-{len(names) - 1}-more-{digest}"
    return f"{joined}.evaluation"


def _read_source(place: StudyPlace) -> StudySpec:
    if not place.spec_file.exists():
        there = ", ".join(sorted(file.parent.name for file in place.home.parent.glob(f"*/{place.spec_file.name}")))
        raise FileNotFoundError(
            f"study={place.home.name}: no study in {place.home}; there {'are ' + there if there else 'is none'}"
        )
    return place.read_spec()
