"""Typed records of a trial: the epochs that it trained, its report to the driver, and its entry in Optuna's storage.

Each record has one encoder. A worker imports this module, so it imports neither Optuna nor Ray.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from harness.common.records import from_json, to_json
from harness.training.metrics import OF_RECORD

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from harness.training.trainer import EpochResult

REPORT = "report"
"""The key under which a Tune result holds a `TrialReport` as JSON: Tune flattens mappings."""

FAILED, STOPS_STUDY = "failed", "stops_study"


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. `figures` and `f1_by_label` are on validation, by metric and by label; losses are in nats.

    `is_constant` marks predictions that give every clip the same answer for each label.
    """

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    figures: Mapping[str, float]
    f1_by_label: Mapping[str, float]
    is_constant: bool
    seconds: float

    @property
    def value(self) -> float:
        """Return the figure that selects epochs and trials."""
        return self.figures[OF_RECORD]

    @classmethod
    def of(cls, result: "EpochResult") -> Self:
        """Return the record of an epoch of a learner."""
        return cls(
            epoch=result.epoch,
            lr=result.lr,
            train_loss=result.train_loss,
            validation_loss=result.validation_loss,
            figures=dict(result.scores.figures),
            f1_by_label=dict(result.scores.f1_by_label),
            is_constant=result.scores.is_constant,
            seconds=result.seconds,
        )


def best_of(records: Sequence[EpochRecord]) -> EpochRecord:
    """Return the first of the epochs with the highest figure of record."""
    return max(records, key=lambda record: record.value)


@dataclass(frozen=True)
class TrialReport:
    """A trial after its last epoch so far.

    `parameters` counts the learned values of each part, `seconds` is over all epochs, `worker` is the Ray node and the
    process that ran the last epoch. `test` holds the figures on the held-out test split once they are read.
    """

    number: int
    last: EpochRecord
    best: EpochRecord
    parameters: Mapping[str, int]
    seconds: float
    worker: str | None = None
    test: Mapping[str, Any] | None = None

    @property
    def params(self) -> int:
        """Return the number of learned values: 0 for a forest, whose trees are not counted."""
        return sum(self.parameters.values())

    def to_tune(self) -> dict[str, Any]:
        """Return the result for Tune, whose schedulers read the plain values beside the report."""
        return {
            "number": self.number,
            "epoch": self.last.epoch,
            "best_macro_f1": self.best.value,
            "params": self.params,
            REPORT: to_json(self),
        }

    @classmethod
    def from_tune(cls, result: Mapping[str, Any]) -> Self | None:
        """Return the report in a result of Tune's, or None if it holds none."""
        return from_json(cls, result[REPORT]) if REPORT in result else None


@dataclass(frozen=True)
class TrialFailure:
    """The reason why a trial cannot go on; with `stops_study`, no other trial can either, as on a full disk."""

    number: int
    reason: str
    stops_study: bool = False

    def to_tune(self) -> dict[str, Any]:
        """Return the result for Tune."""
        return {"number": self.number, FAILED: self.reason, STOPS_STUDY: self.stops_study}


@dataclass(frozen=True)
class TrialRecord:
    """A trial as Optuna's storage holds it.

    `paths` is its whole configuration, None before all of it is drawn. `report` is its last one. `reason` says why it
    ended early. `values` holds its best macro-F1 so far by epoch.
    """

    paths: Mapping[str, Any] | None = None
    report: TrialReport | None = None
    reason: str = ""
    values: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trial: "FrozenTrial") -> Self:
        """Read a trial of Optuna's.

        Raises:
            ValueError: an earlier version of this program wrote it.
        """
        attributes = trial.user_attrs
        if "summary" in attributes:
            raise ValueError(
                f"trial {trial.number}: an earlier version of this program ran it; use that version, or begin a new "
                "study"
            )
        values = json.loads(attributes.get("values", "{}"))
        return cls(
            paths=json.loads(attributes["paths"]) if "paths" in attributes else None,
            report=from_json(TrialReport, attributes["report"]) if "report" in attributes else None,
            reason=attributes.get("reason", ""),
            values={**trial.intermediate_values, **{int(epoch): float(value) for epoch, value in values.items()}},
        )

    def attributes(self) -> dict[str, str]:
        """Return the user attributes that hold this record, without those that say nothing."""
        encoded = {
            "paths": None if self.paths is None else json.dumps(dict(self.paths)),
            "report": None if self.report is None else to_json(self.report),
            "reason": self.reason or None,
            "values": json.dumps(dict(self.values)) if self.values else None,
        }
        return {name: value for name, value in encoded.items() if value is not None}
