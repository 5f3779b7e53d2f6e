"""What comes before the first trial: say what is about to be run, load the backbone, compute the features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from harness.config import TrialConfig
from harness.console import StudyConsole
from harness.data.frontend import FrontEnd
from harness.data.openmic import ClipDataset
from harness.data.progress import track
from harness.data.sources import open_dataset, open_study_data
from harness.data.study_data import StudyData
from harness.driver import cpu_count
from harness.metrics import majority_floor
from harness.models.checkpoints import backbone_digest, load_backbone
from harness.provenance import git_commit, versions
from harness.spec import StudyPlace, StudySpec
from harness.subspace import Axes, configurations, explore
from search_spaces import Space, load


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run: its data are on disk, its flags are checked."""

    spec: StudySpec
    place: StudyPlace
    labels: tuple[str, ...]
    floor: float
    console: StudyConsole


def prepare(spec: StudySpec, place: StudyPlace) -> Prepared:
    """Announce the study, then load the backbone and the data as every worker will."""
    console = StudyConsole()
    space = load(spec.space, spec.preset)
    axes = explore(space)
    console.header(_announcement(spec, place, space=space, axes=axes))
    return prepare_for(spec, place, configurations(axes, spec.fixed), console=console)


def prepare_for(
    spec: StudySpec, place: StudyPlace, configs: Sequence[TrialConfig], *, console: StudyConsole
) -> Prepared:
    """Load the backbone, and compute the features that these configurations hear."""
    backbone = load_backbone(spec.backbone)
    dataset = open_dataset(spec.data, workers=cpu_count(), progress=track)
    heard = _open_all(spec, dataset, backbone.geometry.front_end, configs)
    data = next(iter(heard.values()))
    floor = _floor(data)
    sizes = f"{len(data.train)} to train on, {len(data.validation)} to validate on, {len(data.labels)} labels"
    console.header(
        [
            ("clips", sizes),
            ("floor", f"macro-F1 {floor:.3f} on validation by always guessing each label's more frequent answer"),
        ]
    )
    provenance = {
        "data_digest": dataset.digest,
        **{f"{inputs}_digest": data.digest for inputs, data in heard.items()},
        "backbone_digest": backbone_digest(backbone),
        "git_commit": git_commit(),
        **versions(),
    }
    return Prepared(replace(spec, provenance=provenance), place, data.labels, floor, console)


def _announcement(spec: StudySpec, place: StudyPlace, *, space: Space, axes: Axes) -> list[tuple[str, str]]:
    """Return the first lines of a study: what it runs on what."""
    searched = tuple(path for path in axes.searched if path not in spec.fixed)
    held = "".join(f", {path}={value}" for path, value in spec.fixed.items())
    preset = f", the {spec.preset} recipe" if spec.preset else ""
    labels = ", every training label revealed" if spec.data.reveals_all else ""
    return [
        ("study", f"{spec.name}, seed {spec.seed}, in {place.home}"),
        ("data", f"{spec.data.source}, {spec.data.split} validation split{labels}"),
        ("backbone", f"{spec.backbone}, frozen, {spec.precision}"),
        ("space", f"{spec.space}, {len(searched)} axes{preset}{held}: {space.summary}"),
        ("budget", f"{spec.trials} trials of {spec.epochs} epochs, stopped early by: {spec.scheduler}"),
        ("objective", spec.objective),
        ("device", f"{_device()}, {cpu_count()} CPU cores on this machine"),
    ]


def _open_all(
    spec: StudySpec, dataset: ClipDataset, front_end: FrontEnd, configs: Sequence[TrialConfig]
) -> dict[str, StudyData]:
    """Open what any of the configurations hears, computing the features that are missing; return it by inputs.

    Several front ends over the same clips count as one, under the same digest.
    """
    opened = {}
    for inputs, via_hz, is_peak_normalised in sorted(
        {(c.system.inputs, c.front_end.via_hz, c.front_end.is_peak_normalised) for c in configs}
    ):
        heard = replace(front_end, via_hz=via_hz, is_peak_normalised=is_peak_normalised)
        opened[inputs] = open_study_data(
            spec.data,
            dataset,
            front_end=heard if inputs == "log_mel" else None,
            workers=cpu_count(),
            progress=track,
        )
    return opened


def _floor(data: StudyData) -> float:
    return majority_floor(
        data.train.targets,
        data.validation.targets,
        train_observed=data.train.observed,
        observed=data.validation.observed,
        labels=data.labels,
    ).macro_f1


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
