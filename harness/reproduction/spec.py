"""The plan of a reproduction: a study of each of the paper's systems, their evaluation over seeds, and the report.

    studies/NAME/                 the settings (reproduction.json), the report and its figures
    studies/NAME.SYSTEM/          a study, as `harness.study` runs it
    studies/NAME.evaluation/      the evaluation of their best configurations, as `harness.evaluate` does it
    studies/NAME.ceiling/         on the demo: the linear head, trained with all labels revealed

Each of these continues after an interruption, and so does a reproduction.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.literature import PAPER_BACKBONE, SYSTEMS
from harness.config.settings import settings_of
from harness.config.study import STUDY_FILE, DataSpec, StudyPlace, StudySpec
from search_spaces import PRESETS, load

CEILING = "ceiling"

SETTINGS = "reproduction.json"

_VGGISH_EPOCHS = {"mean_teacher": 100, "random_forest": 1}  # as published; a forest has no epochs

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
    """The settings of a reproduction. `epochs` are those of the log-mel systems.

    `skips_corrupt_tests`: only the evaluation leaves out unreadable clips, since the flag came after the studies.
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
        """Check each value, naming the flag."""
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
        """Fill in the defaults: on the demo, small studies that choose a learning rate for its size.

        On other data each study is one trial: the paper's configuration, epochs and backbone.
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
        """Return the place of the report."""
        return StudyPlace.of(self.storage, self.name)

    @property
    def file(self) -> Path:
        """Return the file that holds these settings."""
        return self.place.home / SETTINGS

    @property
    def has_begun(self) -> bool:
        """Return whether a reproduction of this name has written its settings and begun a study."""
        return self.file.exists() and any(self.file.parent.parent.glob(f"{self.name}.*/{STUDY_FILE}"))

    def place_of(self, part: str) -> StudyPlace:
        """Return the place of the study of a system, or of another part."""
        return StudyPlace.of(self.storage, f"{self.name}.{part}")

    def part_of(self, study: str) -> str:
        """Return the part of which this is the study: a system or the ceiling."""
        return study.removeprefix(f"{self.name}.")

    def spec(self, system: str) -> StudySpec:
        """Return the study of a system, or of the ceiling."""
        space = "none" if system == CEILING else system  # the head alone is quick, and the best on the demo
        uses_log_mel = space not in _VGGISH_EPOCHS
        preset = self.preset if uses_log_mel else None
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
        """Return the systems, and on the demo, where the true labels are known, the ceiling."""
        return (*self.systems, CEILING) if self.data.source == "demo" else self.systems

    def grown_from(self, before: "Reproduction") -> "Reproduction":
        """Return this with the systems that it had `before`, since its report holds all of them.

        It keeps its tracking store unless this names another.

        `--skip-corrupt` may come later. It then applies to the test clips, which the studies did not read.

        Raises:
            ValueError: it differs in a setting that is fixed once it has begun.
        """
        reproduction = self
        if self.data.skips_corrupt and not before.data.skips_corrupt:
            reproduction = replace(self, data=replace(self.data, skips_corrupt=False), skips_corrupt_tests=True)
        was, now = before._held(), reproduction._held()
        if differing := [flag for flag in now if now[flag] != was[flag]]:
            flag = differing[0]
            raise ValueError(
                f"{flag.replace('_', '-')}={now[flag]!r}: reproduction {self.name} in {self.place.home} began with "
                f"{was[flag]!r}; give another --name"
            )
        return replace(
            reproduction,
            systems=tuple(name for name in SYSTEMS if name in (*before.systems, *self.systems)),
            tracking_uri=self.tracking_uri or before.tracking_uri,
        )

    def _held(self) -> dict[str, Any]:
        """Return the settings that a reproduction keeps once it has begun, by flag."""
        values = asdict(self)
        data = values.pop("data")
        return {**values, "data": data.pop("source"), **data, **dict.fromkeys(_FREE)}


def describe_conditions(reproduction: Reproduction) -> str:
    """Return the conditions of a report's figures, as a paragraph."""
    r, fraction = reproduction, reproduction.data.fraction
    chosen = "the paper's configuration" if r.trials == 1 else f"the best by validation of {r.trials} trials"
    recipe = f", the {r.preset} recipe" if r.preset else ""
    vggish = ", here mean log-mel by second, which the demo has in place of VGGish" if r.data.source == "demo" else ""
    part = f", {fraction:g} of it and of the training clips; counts are of all clips" if fraction < 1 else ""
    return (
        f"Each system is {chosen}. Log-mel systems: {r.epochs} epochs{recipe}, backbone {r.backbone}, {r.precision}. "
        f"Mean Teacher: {_VGGISH_EPOCHS['mean_teacher']} epochs; it and the forest use VGGish features{vggish}. "
        f"Validation: the {r.data.split} split{part}. Seed {r.seed}."
    )
