"""The configuration of one trial, read from and written to a flat mapping of paths.

A search space draws paths such as `reprogrammer/depth` and `optimiser/lr`, and `--fix` takes them. The system decides
which other parts apply. Paths of the rest are refused, and none is written.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from harness.common.records import field_types
from harness.common.registry import Registry
from harness.config import components, recipe
from harness.config.checks import of_type, one_of
from harness.config.components import Component

_BUILD = "harness.models.build"

SYSTEMS = Registry(
    "systems",
    {
        "reprogramming": Component(components.Reprogramming, f"{_BUILD}:reprogrammed"),
        "finetune": Component(components.FineTuning, f"{_BUILD}:fine_tuned"),
        "cnn_baseline": Component(components.CnnBaseline, f"{_BUILD}:cnn_baseline"),
        "attention": Component(components.Attention, f"{_BUILD}:attention"),
        "random_forest": Component(components.RandomForest, learner="harness.training.forest:ForestLearner"),
    },
)
"""Builders take `(config: TrialConfig, backbone, target, *, seed, device)` and return a module for a `Trainer`."""

_REPROGRAMMERS = "harness.models.reprogrammers"

REPROGRAMMERS = Registry(
    "reprogrammers",
    {
        "none": Component(components.NoReprogrammer, "torch.nn:Identity"),
        "noise": Component(components.NoiseReprogrammer, f"{_REPROGRAMMERS}:Noise"),
        "cnn": Component(components.CnnReprogrammer, f"{_REPROGRAMMERS}:Cnn"),
        "unet": Component(components.UNetReprogrammer, f"{_REPROGRAMMERS}:UNet"),
    },
)
"""Builders take `n_frames`, `n_mels` and the config's fields by name: a module from spectrograms to spectrograms."""

_MAPPERS = "harness.models.mappers"

MAPPERS = Registry(
    "mappers",
    {
        "linear": Component(components.LinearMapper, f"{_MAPPERS}:Linear"),
        "fc": Component(components.FcMapper, f"{_MAPPERS}:Fc"),
        "many_to_one": Component(components.ManyToOneMapper, f"{_MAPPERS}:build_many_to_one"),
    },
)
"""Builders take `embed_dim`, `n_labels`, `n_sources`, the names `labels` and `source_labels`, `seed`, `label_affinity`
and the config's fields by name.

The module takes the embedding and the backbone, and returns one logit a label.
"""

AUGMENTATIONS = Registry(
    "augmentations",
    {
        "none": Component(recipe.NoAugmentation, "torch.nn:Identity"),
        "specaugment": Component(recipe.SpecAugment, "harness.training.augmentation:build_spec_augment"),
    },
)
"""Builders take the study's `inputs` and the config's fields by name: a function from a training batch to another."""

TEACHERS = {"none": Component(recipe.NoTeacher), "mean": Component(recipe.MeanTeacher)}
"""All teachers; no package adds one, since the trainer knows each."""


_KINDS: dict[str, Mapping[str, Component]] = {
    "system": SYSTEMS,
    "reprogrammer": REPROGRAMMERS,
    "mapper": MAPPERS,
    "augmentation": AUGMENTATIONS,
    "teacher": TEACHERS,
}


@dataclass(frozen=True)
class TrialConfig:
    """One configuration: all that may differ between two trials of a study."""

    system: components.System = field(default_factory=components.Reprogramming)
    reprogrammer: components.Reprogrammer = field(default_factory=components.NoReprogrammer)
    mapper: components.Mapper = field(default_factory=components.LinearMapper)
    normalisation: recipe.Normalisation = field(default_factory=recipe.Normalisation)
    front_end: recipe.FrontEndOptions = field(default_factory=recipe.FrontEndOptions)
    augmentation: recipe.Augmentation = field(default_factory=recipe.NoAugmentation)
    teacher: recipe.Teacher = field(default_factory=recipe.NoTeacher)
    optimiser: recipe.Optimiser = field(default_factory=recipe.Optimiser)
    schedule: recipe.Schedule = field(default_factory=recipe.Schedule)
    training: recipe.Training = field(default_factory=recipe.Training)

    def __post_init__(self) -> None:
        learns = (
            self.system.kind != "reprogramming"
            or self.reprogrammer.kind != "none"
            or not isinstance(self.mapper, components.ManyToOneMapper)
            or self.mapper.is_calibrated
            or self.normalisation.kind == "learned"
        )
        if not learns:
            raise ValueError(
                "reprogrammer/kind=none with mapper/kind=many_to_one: nothing in this trial learns; "
                "choose another reprogrammer or mapper, mapper/is_calibrated=true or normalisation/kind=learned"
            )

    @property
    def name(self) -> str:
        """Return the name of the space that this is a configuration of, or `attention` without a teacher."""
        if self.system.kind == "reprogramming":
            return self.reprogrammer.kind
        return "mean_teacher" if self.teacher.kind == "mean" else self.system.kind

    @classmethod
    def from_paths(cls, paths: Mapping[str, Any]) -> "TrialConfig":
        """Return the configuration with these paths; all others take their defaults.

        Raises:
            ValueError: a path or a value is unknown, means nothing for the system, or conflicts with the others.
        """
        given: dict[str, dict[str, Any]] = {part.name: {} for part in fields(cls)}
        for path, value in paths.items():
            part, _, name = path.partition("/")
            if part not in given or not name:
                raise ValueError(f"{path}={value!r}: unknown path; its first part must be one of {', '.join(given)}")
            given[part][name] = value
        system = _built("system", given.pop("system"))
        for part, values in given.items():
            if values and part not in system.uses:
                name, value = next(iter(values.items()))
                raise ValueError(
                    f"{part}/{name}={value!r}: means nothing with system/kind={system.kind}, "
                    f"whose other parts are {', '.join(system.uses) or 'none'}"
                )
        return cls(system=system, **{part: _built(part, values) for part, values in given.items()})

    def to_paths(self) -> dict[str, Any]:
        """Return the value of every path that applies, defaults included."""
        paths: dict[str, Any] = {}
        for part in ("system", *self.system.uses):
            value = getattr(self, part)
            if part in _KINDS:
                paths[f"{part}/kind"] = value.kind
            paths |= {f"{part}/{name}": inner for name, inner in asdict(value).items()}
        return paths

    def digest(self) -> str:
        """Return the SHA-256 over all paths and values, as hex."""
        return hashlib.sha256(json.dumps(self.to_paths(), sort_keys=True).encode()).hexdigest()


def _built(part: str, values: dict[str, Any]) -> Any:
    kinds, where = _KINDS.get(part), ""
    if kinds is None:
        made: Any = field_types(TrialConfig)[part]
    else:
        kind = values.pop("kind", next(iter(kinds)))
        one_of(f"{part}/kind", kind, kinds)
        made, where = kinds[kind].config, f" with {part}/kind={kind}"
    known, types = [f.name for f in fields(made)], field_types(made)
    for name, value in values.items():
        if name not in known:
            valid = ", ".join(f"{part}/{k}" for k in known) or "none"
            raise ValueError(f"{part}/{name}={value!r}: unknown path{where}; valid ones: {valid}")
        of_type(f"{part}/{name}", value, types[name])
    return made(**values)
