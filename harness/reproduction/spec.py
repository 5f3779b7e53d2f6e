"""The paper, whole: a study of each of its systems, their evaluation over seeds, and the report.

    studies/NAME/                 what was asked for (reproduction.json), the report and its figures
    studies/NAME.SYSTEM/          a study, as `harness.study` runs it
    studies/NAME.evaluation/      the evaluation of their best configurations, as `harness.evaluate` does it
    studies/NAME.ceiling/         on the demo: the linear head, told all that plays in the training clips

Each of these goes on where it stopped, so a reproduction does too.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.literature import PAPER_BACKBONE, SYSTEMS
from harness.config.settings import settings_of
from harness.config.study import DataSpec, StudyPlace, StudySpec
from search_spaces import PRESETS, load

CEILING = "ceiling"

_VGGISH_EPOCHS = {"mean_teacher": 100, "random_forest": 1}  # the former as published, the latter knows no epochs

VGGISH_SYSTEMS = tuple(_VGGISH_EPOCHS)

_FREE = {
    "seeds",
    "systems",
    "skips_corrupt_tests",
    *(name for spec in (StudySpec, DataSpec) for name, s in settings_of(spec).items() if s.is_free_in_reproduction),
}
"""The fields that may change once a reproduction has begun: its own, and those that the table of settings frees."""


@dataclass(frozen=True)
class Reproduction:
    """What is to be reproduced. `epochs` are those of the systems that hear log-mel.

    `skips_corrupt_tests`: the evaluation alone leaves out unreadable clips, since that was asked for after its studies.
    """

    name: str
    storage: str
    data: DataSpec
    systems: tuple[str, ...]
    seeds: int
    trials: int
    epochs: int
    backbone: str
    seed: int = 0
    preset: str | None = None
    precision: str = "fp32"
    tracking_uri: str | None = None
    skips_corrupt_tests: bool = False

    def __post_init__(self) -> None:
        """Refuse what no reproduction can be, naming the flag."""
        for flag in ("seeds", "trials", "epochs"):
            if getattr(self, flag) < 1:
                raise ValueError(f"{flag}={getattr(self, flag)}: must be at least 1")
        if unknown := [system for system in self.systems if system not in SYSTEMS]:
            raise ValueError(f"systems={unknown[0]!r}: must be some of {', '.join(SYSTEMS)}")
        for system in self.systems:
            self.spec(system)

    @classmethod
    def of(
        cls,
        *,
        data: DataSpec,
        systems: str | None,
        seeds: int | None,
        trials: int | None,
        epochs: int | None,
        preset: str | None,
        name: str | None,
        backbone: str | None,
        **others: Any,
    ) -> "Reproduction":
        """Fill in what was not asked for: on the demo, small studies that choose a learning rate for its size.

        On other data each system's study is one trial, the paper's own configuration, for the paper's epochs on the
        paper's backbone.
        """
        is_demo = data.source == "demo"
        if data.demo_clips is not None and not is_demo:
            raise ValueError(
                f"demo-clips={data.demo_clips}: cannot go with --data; only the demo set has a size to choose"
            )
        papers = PRESETS[preset].epochs if preset in PRESETS else PRESETS["paper"].epochs
        asked = [word.strip() for word in systems.split(",")] if systems else list(SYSTEMS)
        return cls(
            name=name or f"reproduce-{Path(data.source).name}",
            data=data,
            systems=tuple(dict.fromkeys(asked)),
            seeds=seeds if seeds is not None else (3 if is_demo else 10),
            trials=trials if trials is not None else (8 if is_demo else 1),
            epochs=epochs if epochs is not None else (12 if is_demo and preset is None else papers),
            preset=preset,
            backbone=backbone or ("ast-nano" if is_demo else PAPER_BACKBONE),
            **others,
        )

    @property
    def place(self) -> StudyPlace:
        """Return where the report goes."""
        return StudyPlace.of(self.storage, self.name)

    def place_of(self, part: str) -> StudyPlace:
        """Return where the study of a system, or another part, is."""
        return StudyPlace.of(self.storage, f"{self.name}.{part}")

    def spec(self, system: str) -> StudySpec:
        """Return the study of a system, or of the ceiling."""
        space = "none" if system == CEILING else system  # the head alone: quick, and on the demo the best of all
        hears_log_mel = space not in _VGGISH_EPOCHS
        preset = self.preset if hears_log_mel else None
        load(space, preset)
        return StudySpec(
            name=f"{self.name}.{system}",
            space=space,
            preset=preset,
            trials=self.trials,
            epochs=_VGGISH_EPOCHS.get(space, self.epochs),
            backbone=self.backbone,
            data=replace(self.data, reveals_all=system == CEILING),
            seed=self.seed,
            storage=self.storage,
            scheduler="asha" if self.trials > 1 else "none",
            precision=self.precision,
            tracking_uri=self.tracking_uri,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the systems, and the ceiling on the demo, where it is known what plays in a clip."""
        return (*self.systems, CEILING) if self.data.source == "demo" else self.systems

    def grown_from(self, before: "Reproduction") -> "Reproduction":
        """Return this with the systems that it had `before`, since its report holds all of them.

        To leave out unreadable clips may be asked for later: it then holds for the test clips, which the studies did
        not read.

        Raises:
            ValueError: it differs in something that does not change once it has begun.
        """
        wanted = self
        if self.data.skips_corrupt and not before.data.skips_corrupt:
            wanted = replace(self, data=replace(self.data, skips_corrupt=False), skips_corrupt_tests=True)
        wanted._check_continues(before)
        return replace(wanted, systems=tuple(name for name in SYSTEMS if name in (*before.systems, *self.systems)))

    def _check_continues(self, before: "Reproduction") -> None:
        """Check that this is `before`, perhaps with other seeds or systems."""
        was, now = before._held(), self._held()
        differing = [flag for flag in now if now[flag] != was[flag]]
        if differing:
            flag = differing[0]
            raise ValueError(
                f"{flag.replace('_', '-')}={now[flag]!r}: reproduction {self.name} in {self.place.home} began with "
                f"{was[flag]!r}; give another --name"
            )

    def _held(self) -> dict[str, Any]:
        """Return what does not change once it has begun, by flag."""
        values = asdict(self)
        data = values.pop("data")
        return {**values, "data": data.pop("source"), **data, **dict.fromkeys(_FREE)}

    @classmethod
    def from_json(cls, text: str) -> "Reproduction":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "data": DataSpec(**values["data"]), "systems": tuple(values["systems"])})

    def to_json(self) -> str:
        """Return the reproduction as JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


def describe(wanted: Reproduction) -> str:
    """Return under which conditions the figures of a report came about, in a paragraph."""
    chosen = "the paper's configuration" if wanted.trials == 1 else f"the best by validation of {wanted.trials} trials"
    recipe = f", the {wanted.preset} recipe" if wanted.preset else ""
    heard = ", on mean log-mel by second, which the demo has in place of VGGish" if wanted.data.source == "demo" else ""
    fraction = wanted.data.fraction
    part = f", {fraction:g} of it and of the training clips; counts are of all clips" if fraction < 1 else ""
    return (
        f"Each system is {chosen}. Systems that hear log-mel: {wanted.epochs} epochs{recipe}, backbone "
        f"{wanted.backbone}, {wanted.precision}. Mean Teacher: {_VGGISH_EPOCHS['mean_teacher']} epochs; it and the "
        f"forest hear VGGish features{heard}. Validation: the {wanted.data.split} split{part}. Seed {wanted.seed}."
    )
