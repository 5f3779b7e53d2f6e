"""The specification of a study: all settings that decide its result, stored beside the results."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.common.ray_start import check_address, check_fits
from harness.common.records import read_record, write_record
from harness.config.checks import one_of
from harness.config.settings import differing_digests, differing_fields, setting, settings_of, terms_in
from tracking.uris import default_uri

OBJECTIVES: dict[str, tuple[str, ...]] = {"f1": ("best_macro_f1",), "f1,params": ("best_macro_f1", "params")}
"""The reported figures that each objective compares; the first goes up, the second down."""


STUDY_FILE = "study.json"


SCHEDULERS = {kind: f"harness.study.scheduler:make_{kind}" for kind in ("asha", "median", "none")}
"""Functions of the number of epochs that return one of Tune's schedulers, by kind; see `resolve`."""

SPLITS = {kind: f"harness.data.splits:{kind}_validation" for kind in ("random", "public", "artist")}
"""Functions that draw the validation clips, by kind; see `resolve`."""

PRECISIONS = {"fp32": "torch:float32", "bf16": "torch:bfloat16"}


def check_split(kind: str, validation_fraction: float) -> None:
    """Check the kind of a validation split and its share of the train clips.

    Raises:
        ValueError: the kind is unknown, or the share does not lie between 0 and 1.
    """
    one_of("split", kind, SPLITS)
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation-fraction={validation_fraction}: must lie between 0 and 1")


def check_name(name: str, *, flag: str) -> None:
    """Check the name of a study, which is that of its directory, too.

    Raises:
        ValueError: it is empty, or has another character.
    """
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ValueError(f"{flag}={name!r}: letters, digits, '-', '_' and '.' only, no '.' first")


def _describe_data(study: "StudySpec") -> str:
    return f"{Path(study.data.source).name}-{study.provenance['data_digest'][:6]}"


def _describe_backbone(study: "StudySpec") -> str:
    backbone = Path(study.backbone).name.removesuffix(".safetensors")
    # a user's file may have the name of many others
    return backbone if backbone == study.backbone else f"{backbone}-{study.provenance['backbone_digest'][:6]}"


@dataclass(frozen=True)
class DataSpec:
    """The clips of a study.

    `source` is `demo`, `openmic` or a directory in OpenMIC-2018's layout. `demo_clips` and `demo_seed` apply to the
    demo alone, `validation_fraction` to the random and the artist-disjoint split. `fraction` is the share of the
    training and of the validation clips in use, drawn with `split_seed` like the splits. All test clips are always
    used. `reveals_all` measures the value of full annotation, on the demo alone: every instrument in a training clip is
    observed, and negatives in the annotators' proportion. Validation and test clips stay sparsely annotated.
    """

    source: str = setting("demo", term="data", fixes_retraining=True, in_experiment=_describe_data)
    demo_clips: int | None = setting(None, fixes_retraining=True)  # the digests tell which demo set it was
    demo_seed: int = setting(0, fixes_retraining=True)
    split: str = setting("random", term="split", pairs_runs=True, fixes_retraining=True)
    validation_fraction: float = setting(
        0.15,
        term="validation_fraction",
        reads_as=lambda data: "published" if data.split == "public" else data.validation_fraction,
        pairs_runs=True,
        fixes_retraining=True,
    )
    split_seed: int = setting(0, term="split_seed", pairs_runs=True, fixes_retraining=True)
    fraction: float = setting(
        1.0,
        term="fraction",
        pairs_runs=True,
        fixes_retraining=True,
        in_experiment=lambda study: f"fraction {study.data.fraction:g}" if study.data.fraction < 1 else "",
    )
    skips_corrupt: bool = setting(False, term="skips_corrupt", pairs_runs=True, fixes_retraining=True)
    reveals_all: bool = setting(
        False,
        term="reveals_all",
        fixes_retraining=True,
        shapes_learning=True,
        in_experiment=lambda study: "all positives known" if study.data.reveals_all else "",
    )

    def __post_init__(self) -> None:
        check_split(self.split, self.validation_fraction)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction}: must be above 0 and at most 1")
        if self.reveals_all and self.source != "demo":
            raise ValueError(f"data={self.source!r}: reveals_all needs the true instruments, which only demo has")

    def describe(self) -> str:
        """Say where the clips come from and how validation is split off."""
        part = f", a fraction of {self.fraction:g}" if self.fraction < 1 else ""
        return f"{self.source}, {self.split} validation split{part}"


@dataclass(frozen=True)
class StudySpec:
    """One study. `provenance` holds its first digests and versions; `storage` is a directory or a URI."""

    name: str = setting()
    space: str = setting()
    trials: int = setting(may_change_on_resume=True)
    epochs: int = setting(term="epochs", fixes_retraining=True, shapes_learning=True)
    backbone: str = setting(term="backbone", fixes_retraining=True, in_experiment=_describe_backbone)
    data: DataSpec = setting()  # noqa: RUF009  it is a field(), and its own fields are settings
    seed: int = setting()
    storage: str = setting(may_change_on_resume=True)
    objective: str = setting("f1", term="objective")
    scheduler: str = setting("asha", term="scheduler")
    precision: str = setting("fp32", term="precision", fixes_retraining=True)
    preset: str | None = setting(None, term="preset", reads_as=lambda study: study.preset or "none")
    fixed: Mapping[str, Any] = setting(
        factory=dict,
        term="fixed",
        reads_as=lambda study: " ".join(f"{path}={value}" for path, value in sorted(study.fixed.items())) or "none",
    )
    tracking_uri: str | None = setting(None, may_change_on_resume=True, is_free_in_reproduction=True)
    provenance: Mapping[str, str] = setting(factory=dict)  # its digests are settings, see DIGESTS

    def __post_init__(self) -> None:
        check_name(self.name, flag="name")
        for flag in ("trials", "epochs"):
            if getattr(self, flag) < 1:
                raise ValueError(f"{flag}={getattr(self, flag)}: must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed}: must be 0 to 2**32 - 1")
        one_of("objective", self.objective, tuple(OBJECTIVES))
        one_of("scheduler", self.scheduler, SCHEDULERS)
        one_of("precision", self.precision, PRECISIONS)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Return the reported figures that the study compares."""
        return OBJECTIVES[self.objective]

    def trial_seed(self, number: int) -> int:
        """Return the seed of one trial's weights and batches."""
        return self.seed * 1_000_003 + number

    def extended(self, *, trials: int | None, tracking_uri: str | None) -> "StudySpec":
        """Return the study with a larger budget or another tracking store, the only changes on resume.

        Raises:
            ValueError: the budget would shrink.
        """
        if trials is not None and trials < self.trials:
            raise ValueError(f"trials={trials}: study {self.name} already has a budget of {self.trials}; it only grows")
        return replace(self, trials=trials or self.trials, tracking_uri=tracking_uri or self.tracking_uri)


@dataclass(frozen=True)
class Resources:
    """The resources of a study. If None, `concurrent` and `gpus_per_trial` follow from the cluster."""

    address: str | None = None
    concurrent: int | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: int | None = None

    def __post_init__(self) -> None:
        for flag in ("concurrent", "cpus_per_trial"):
            value = getattr(self, flag)
            if value is not None and value < 1:
                raise ValueError(f"{flag.replace('_', '-')}={value}: must be at least 1")
        if self.gpus_per_trial is not None and self.gpus_per_trial < 0:
            raise ValueError(f"gpus-per-trial={self.gpus_per_trial}: must not be negative")

    def flags(self) -> dict[str, Any]:
        """Return the flags of these resources, for a command line."""
        return {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items() if value is not None}


def check_machine(resources: Resources) -> None:
    """Check that a trial fits this machine, or that the cluster answers at its address.

    Raises:
        ValueError: it does not.
    """
    if resources.address is None:
        check_fits(cpus=resources.cpus_per_trial, gpus=resources.gpus_per_trial)
    else:
        check_address(resources.address)


@dataclass(frozen=True)
class StudyPlace:
    """The place of a study's files. `home` is local to the driver; every worker can write to `shared`."""

    home: Path
    shared: str

    @classmethod
    def of(cls, storage: str, name: str) -> "StudyPlace":
        """Return the place of the named study under a directory or a URI such as `s3://bucket/studies`."""
        if "://" in storage:
            return cls(Path("studies").absolute() / name, f"{storage.rstrip('/')}/{name}")
        home = Path(storage).expanduser().absolute() / name
        return cls(home, str(home))

    @property
    def spec_file(self) -> Path:
        """Return the file that holds the study's specification."""
        return self.home / STUDY_FILE

    def read_spec(self) -> StudySpec:
        """Return the specification of the study here.

        Raises:
            FileNotFoundError: there is no study here.
            ValueError: the file was cut short, or is of another version.
        """
        if not self.spec_file.exists():
            raise FileNotFoundError(f"resume={self.home.name}: no study in {self.home}")
        return read_record(StudySpec, self.spec_file)

    def check_is_free(self) -> None:
        """Check that no study has begun here.

        Raises:
            ValueError: one has.
        """
        if self.spec_file.exists():
            name = self.home.name
            raise ValueError(
                f"name={name}: this study exists in {self.home}; resume it by --resume {name}, or choose another --name"
            )

    def write_spec(self, spec: StudySpec) -> None:
        """Write the specification of the study here."""
        write_record(self.spec_file, spec)

    def has_begun(self) -> bool:
        """Return whether a driver has opened the study's storage."""
        return any(self.home.glob("optuna.*"))

    @property
    def default_tracking_uri(self) -> str:
        """Return the MLflow store shared by all studies beside this one."""
        return default_uri(self.home.parent)


def claim_name(storage: str, space: str) -> str:
    """Make the directory of the first of `space-1`, `space-2`, ... that no study has taken; return that name.

    Two studies that start at once get two names, since only one of them can make a directory.

    Raises:
        OSError: the directory cannot be made.
    """
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            name = f"{space}-{number}"
            make_study_directory(StudyPlace.of(storage, name).home, is_new=True)
            return name
        number += 1


def make_study_directory(home: Path, *, is_new: bool = False) -> None:
    """Make the directory of a study, and those above it.

    Raises:
        FileExistsError: it must be new and is not.
        OSError: it cannot be made; the message names the flag.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(exist_ok=not is_new)
    except OSError as error:
        if is_new and isinstance(error, FileExistsError) and home.exists():
            raise
        raise OSError(
            f"storage={str(home.parent)!r}: cannot be written ({error.strerror}); give another --storage"
        ) from error


def parse_seconds(text: str) -> float:
    """Return the seconds of a duration such as `90`, `90s`, `15m` or `2h`.

    Raises:
        ValueError: it is no duration, or none above 0.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"time-budget={text!r}: must be a duration such as 90s, 15m or 2h")
    return seconds


def differing(one: StudySpec, other: StudySpec, role: str) -> list[str]:
    """Return the names of the settings and digests with this role, a field of `Setting`, that two studies differ in."""
    return [
        *differing_fields(one, other, role),
        *differing_fields(one.data, other.data, role),
        *differing_digests(one.provenance, other.provenance, role),
    ]


def named_terms(study: StudySpec) -> dict[str, Any]:
    """Return a study's MLflow parameters by name, defaults included."""
    return {**terms_in(study.data), **terms_in(study)}


def experiment_words(study: StudySpec) -> tuple[str, str]:
    """Return the words for the data and for the backbone in the name of a study's experiment.

    An experiment holds the studies of one data set, or a fraction of it, and one backbone. Studies with all labels
    revealed get their own. All other settings are parameters of every run.
    """
    data, backbone = (
        [words for entry in settings_of(spec).values() if entry.in_experiment and (words := entry.in_experiment(study))]
        for spec in (study.data, study)
    )
    return " ".join(data), " ".join(backbone)


def terms_of_all(specs: Iterable[StudySpec]) -> dict[str, str]:
    """Return the terms of several studies, each with all its values in the order of the studies."""
    of_each = [named_terms(spec) for spec in specs]
    return {name: ", ".join(dict.fromkeys(str(terms[name]) for terms in of_each)) for name in of_each[0]}
