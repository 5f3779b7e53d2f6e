"""The records of a study: built from plain mappings, each one JSON line of the outbox.

A record does one thing to one MLflow run. `key` identifies the run, and `name` the record within its run, which makes
repeated records harmless. `time_ms` is the time of the event: a record may be delivered late, or twice, and MLflow
shows no trace of it.

    outbox.add(open_trial(outbox.study_key, 7, name="unet-007", params={"reprogrammer/kind": "unet"}))
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tracking import names

Op = Literal["run", "params", "metrics", "artifact", "end"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
_NOTHING: Mapping[str, Any] = {}
_FINAL_DIGITS = 4  # the UI's columns show no more, and cut off what is longer


@dataclass(frozen=True)
class Record:
    """One thing to do to one run.

    `body` by `op`: `run` (name, parent, tags, labels, metrics), `params` (values, is_searched), `metrics` (step,
    values), `artifact` (path, folder), `end` (status, tags).
    """

    op: Op
    key: str
    name: str
    body: Mapping[str, Any] = field(default_factory=dict)
    time_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def to_line(self) -> str:
        """Return the record as one line of JSON, line end included."""
        return json.dumps(self.__dict__, separators=(",", ":")) + "\n"

    @classmethod
    def of_line(cls, line: str) -> "Record":
        """Read a line that `to_line` wrote.

        Raises:
            ValueError: the line is not JSON, or a field of a record is missing.
        """
        try:
            return cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from None


def trial_key(study: str, number: int) -> str:
    """Return the key of a trial's run. `study` is the outbox's `study_key`, `number` counts from 0."""
    return f"{study}/{number:04d}"


def is_trial_key(key: str) -> bool:
    """Return whether a run is a trial's, not a study's."""
    return "/" in key


def epoch_name(epoch: int) -> str:
    """Return the name of an epoch's record (from 1)."""
    return f"epoch {epoch}"


def open_study(
    study: str,
    *,
    name: str,
    params: Mapping[str, Any] = _NOTHING,
    tags: Mapping[str, Any] = _NOTHING,
    labels: Sequence[str] = (),
    metrics: Sequence[str] = names.METRICS,
    kind: str = names.STUDY_KIND,
) -> list[Record]:
    """Open the run of a study or, by its `kind`, of an evaluation; or open it again on resume.

    `labels`, in class order, and the names of its `metrics` become columns of the views. MLflow
    never changes a param: values that a resume may change belong in `tags`.
    """
    opening = {
        "name": name,
        "parent": None,
        "tags": _texts({**tags, names.KIND: kind, names.STUDY: name}),
        "labels": list(labels),
        "metrics": list(metrics),
    }
    return [Record("run", study, "run", opening), *_params(study, params)]


def open_trial(
    study: str,
    number: int,
    *,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any] = _NOTHING,
    kind: str = names.TRIAL_KIND,
) -> list[Record]:
    """Open the run of a trial or, by its `kind`, of an evaluation's; or open it again on resume.

    `params` are keyed by path (`reprogrammer/width`); learning rates get a twin with their decimal logarithm. `tags`
    should name the study (`study`), its `space` and the `system`, which gives the run its colour. Only the parameters
    of a study's trials count as searched.
    """
    key = trial_key(study, number)
    colour = names.colour_of(str(tags.get(names.SYSTEM) or params.get(names.REPROGRAMMER, "")))
    opening = {
        "name": name,
        "parent": study,
        "tags": _texts({**tags, names.KIND: kind, "mlflow.runColor": colour}),
    }
    rates = {
        names.log10_path(path): f"{math.log10(value):.4f}"
        for path, value in params.items()
        if names.is_learning_rate(path) and isinstance(value, int | float) and value > 0
    }
    written = _params(key, {**params, **rates}, is_searched=kind == names.TRIAL_KIND)
    return [Record("run", key, "run", opening), *written]


def log_epoch(
    study: str,
    number: int,
    *,
    epoch: int,
    val: Mapping[str, float],
    train: Mapping[str, float] = _NOTHING,
    val_f1: Mapping[str, float] = _NOTHING,
    lr: float | None = None,
) -> list[Record]:
    """Record an epoch (from 1): `val` and `train` are keyed by bare metric name, `val_f1` by label."""
    values: dict[str, Any] = {f"val/{name}": value for name, value in val.items()}
    values |= {f"train/{name}": value for name, value in train.items()}
    values |= _labelled("val_f1", val_f1) | {names.LR: lr}
    return [Record("metrics", trial_key(study, number), epoch_name(epoch), {"step": epoch, "values": _numbers(values)})]


def finish_trial(
    study: str,
    number: int,
    *,
    status: Status,
    metrics: Mapping[str, float] = _NOTHING,
    f1: Mapping[str, float] = _NOTHING,
    test: Mapping[str, float] = _NOTHING,
    test_f1: Mapping[str, float] = _NOTHING,
    params_by_part: Mapping[str, int] = _NOTHING,
    epochs: int | None = None,
    seconds: float | None = None,
    tags: Mapping[str, Any] = _NOTHING,
    reason: str | None = None,
    artifacts: Mapping[str, Sequence[Path]] = _NOTHING,
) -> list[Record]:
    """End a trial's run.

    `metrics` and `test` are keyed by metric name, on validation and on the test split; `f1` and `test_f1` by label,
    `params_by_part` by part of the model. `artifacts` are local files by their folder in MLflow; each file must stay
    in place until it is delivered.
    """
    values: dict[str, Any] = {**metrics, names.EPOCHS: epochs, **_labelled("f1", f1), **_labelled("test_f1", test_f1)}
    values[names.SECONDS] = None if seconds is None else round(seconds, 1)
    values |= {names.test(name): value for name, value in test.items()}
    values |= {names.params_of(part): count for part, count in params_by_part.items()}
    summary = None
    if total := sum(params_by_part.values()):
        values |= {names.PARAMS: total, names.PARAMS_LOG10: math.log10(total)}
        if (macro_f1 := metrics.get(names.MACRO_F1)) is not None:
            summary = f"Macro-F1 {macro_f1:.4f} with {total:,} trainable parameters."
    noted = {**tags, names.REASON: reason, names.DESCRIPTION: reason or summary}
    return _finish(trial_key(study, number), status, values=values, tags=noted, artifacts=artifacts)


def finish_study(
    study: str,
    *,
    status: Status,
    metrics: Mapping[str, float] = _NOTHING,
    artifacts: Mapping[str, Sequence[Path]] = _NOTHING,
) -> list[Record]:
    """End a study's run; `metrics` summarise it (the best macro-F1, the number of trials)."""
    return _finish(study, status, values=metrics, tags={}, artifacts=artifacts)


def _finish(
    key: str,
    status: Status,
    *,
    values: Mapping[str, Any],
    tags: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Path]],
) -> list[Record]:
    final = {name: round(value, _FINAL_DIGITS) for name, value in _numbers(values).items()}
    records = [Record("metrics", key, "final", {"step": 0, "values": final})]
    for folder, paths in artifacts.items():
        for path in paths:
            body = {"path": str(path.absolute()), "folder": folder}
            records.append(Record("artifact", key, f"artifact {folder}/{path.name}", body))
    return [*records, Record("end", key, "end", {"status": status, "tags": _texts(tags)})]


def _params(key: str, params: Mapping[str, Any], *, is_searched: bool = True) -> list[Record]:
    body = {"values": _texts(params), "is_searched": is_searched}
    return [Record("params", key, "params", body)] if params else []


def _labelled(figure: names.Labelled, values: Mapping[str, float]) -> dict[str, float]:
    return {names.labelled(figure, label): value for label, value in values.items()}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}
