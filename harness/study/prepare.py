"""Preparation before the first trial: announce the study, load the backbone, compute the features."""

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness.common.progress import track
from harness.common.ray_start import cpu_count
from harness.config.space import Axes, configurations, explored
from harness.config.study import DataSpec, StudyPlace, StudySpec
from harness.config.trial import TrialConfig
from harness.data.batches import StudyData
from harness.data.dataset import ClipDataset
from harness.data.splits import study_split
from harness.models.backbones import backbone_digest, load_backbone, origin_of
from harness.study.console import StudyConsole
from harness.study.sources import features_of, inputs_of, open_dataset, open_study_data
from harness.training.metrics import majority_floor, one_sided_labels
from search_spaces import Space, load

_PACKAGES = (
    "reprogramming-harness",
    "torch",
    "torchaudio",
    "timm",
    "ray",
    "optuna",
    "mlflow",
    "numpy",
    "scikit-learn",
)


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
    axes = explored(spec.space, spec.preset)
    console.header(_announcement(spec, place, space=space, axes=axes))
    return prepare_for(spec, place, configurations(axes, spec.fixed), console=console)


def prepare_for(
    spec: StudySpec,
    place: StudyPlace,
    configs: Sequence[TrialConfig],
    *,
    console: StudyConsole,
    reads_test: bool = False,
) -> Prepared:
    """Load the backbone, and extract the inputs of these configurations, of test clips too if they will be read."""
    backbone = load_backbone(spec.backbone)
    extraction: dict[str, Any] = {"workers": cpu_count(), "progress": track}
    dataset = open_dataset(spec.data, **extraction)
    needed = sorted({inputs_of(config, backbone.front_end) for config in configs}, key=repr)
    # several front ends over the same clips share a name and a digest
    opened = {i.name: open_study_data(spec.data, dataset, inputs=i, **extraction) for i in needed}
    tested = {
        i.name: features_of(i, dataset, spec=spec.data, rows=dataset.test, **extraction)
        for i in (needed if reads_test else ())
    }
    data = next(iter(opened.values()))
    floor = majority_floor(
        data.train.targets,
        data.validation.targets,
        train_observed=data.train.observed,
        observed=data.validation.observed,
        labels=data.labels,
    ).macro_f1
    sizes = f"{len(data.train)} to train on, {len(data.validation)} to validate on, {len(data.labels)} labels"
    console.header(
        [
            ("clips", sizes),
            *([("fraction", _describe_fraction(spec.data, dataset))] if spec.data.fraction < 1 else []),
            (
                "floor",
                f"macro-F1 {floor:.3f} on validation by always guessing each label's more frequent answer in training",
            ),
            *_one_sided(data),
        ]
    )
    provenance = {
        "data_digest": dataset.digest,
        **{f"{name}_digest": data.digest for name, data in opened.items()},
        **{f"{name}_test_digest": features.digest for name, features in tested.items()},
        "backbone_digest": backbone_digest(backbone),
        **origin_of(spec.backbone),
        "git_commit": _git_commit(),
        **_versions(),
    }
    return Prepared(replace(spec, provenance=provenance), place, data.labels, floor, console)


def _announcement(spec: StudySpec, place: StudyPlace, *, space: Space, axes: Axes) -> list[tuple[str, str]]:
    """Return the first lines of a study: its settings."""
    searched = tuple(path for path in axes.searched if path not in spec.fixed)
    held = "".join(f", {path}={value}" for path, value in spec.fixed.items())
    preset = f", the {spec.preset} recipe" if spec.preset else ""
    labels = ", all that plays in the training clips revealed" if spec.data.reveals_all else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return [
        ("study", f"{spec.name}, seed {spec.seed}, in {place.home}"),
        ("data", f"{spec.data.describe()}{labels}"),
        ("backbone", f"{spec.backbone}, frozen, {spec.precision}"),
        ("space", f"{spec.space}, {len(searched)} axes{preset}{held}: {space.summary}"),
        ("budget", f"{spec.trials} trials of {spec.epochs} epochs, stopped early by: {spec.scheduler}"),
        ("objective", spec.objective),
        ("device", f"{device}, {cpu_count()} CPU cores on this machine"),
        *([("MLflow", spec.tracking_uri)] if spec.tracking_uri else []),
    ]


def _describe_fraction(spec: DataSpec, dataset: ClipDataset) -> str:
    """Return the numbers of clips before and after a fraction, and why they may exceed it."""
    whole, kept = study_split(replace(spec, fraction=1.0), dataset), study_split(spec, dataset)
    sizes = [int(dataset.observed[rows].any(axis=1).sum()) for rows in (whole.train, whole.validation)]
    asked = [round(spec.fraction * size) for size in sizes]
    found = [len(kept.train), len(kept.validation)]
    text = f"{spec.fraction:g} of {sizes[0]} and {sizes[1]} clips, stratified by label: {found[0]} and {found[1]}"
    why = f", more than {asked[0]} and {asked[1]} since each label keeps a clip with each of its answers"
    return text if found == asked else text + why


def _one_sided(data: StudyData) -> list[tuple[str, str]]:
    """Return a line about the labels that no figure on validation counts."""
    found = one_sided_labels(data.validation.targets, data.validation.observed, data.labels)
    if not found:
        return []
    shares = f"{len(found)} of {len(data.labels)} labels have only one answer on validation"
    effect = "no figure counts them" if len(found) < len(data.labels) else "so the figures say little"
    return [("one-sided", f"{shares}, {effect}: {', '.join(found)}")]


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result."""
    found = {"version/python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[f"version/{package}"] = version(package)
        except PackageNotFoundError:
            found[f"version/{package}"] = "not installed"
    return found


def _git_commit() -> str:
    """Return the commit of this source tree, with `-dirty` if it has changes, or `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
