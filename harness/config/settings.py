"""The one table of the settings that make studies comparable: each field of a spec declares its effects.

The fields of `StudySpec` and `DataSpec` are declared with `setting(...)`; `DIGESTS` has the entries of a provenance.
Selection, held-out usage, evaluation, resume, reproduction, MLflow parameters and experiment names derive from these
entries and from nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

_DIGEST = "_digest"


@dataclass(frozen=True)
class Setting:
    """The effects of one setting.

    `may_change_on_resume`: a resumed study may have another value.
    `pairs_runs`: it decides the scored clips and their input, so only runs with the same value are compared.
    `fixes_retraining`: all runs of one evaluation from one study have the same value.
    `shapes_learning`: a configuration learns something else under another value.
    `is_free_in_reproduction`: a resumed reproduction may have another value.
    `term`: its name among the MLflow parameters, also in old databases. `reads_as` turns the spec into its value there.
    `in_experiment`: turns a study into the setting's words in the name of its experiment, or "".
    """

    may_change_on_resume: bool = False
    pairs_runs: bool = False
    fixes_retraining: bool = False
    shapes_learning: bool = False
    is_free_in_reproduction: bool = False
    term: str | None = None
    reads_as: Callable[[Any], Any] | None = None
    in_experiment: Callable[[Any], str] | None = None


def setting(default: Any = MISSING, *, factory: Any = MISSING, **decides: Any) -> Any:
    """Return a dataclass field with its entry in the table."""
    metadata = {"setting": Setting(**decides)}
    return field(default=default, default_factory=factory, metadata=metadata)


def settings_of(spec: Any) -> dict[str, Setting]:
    """Return the entries of a spec's fields, or of its class's, by name.

    Raises:
        KeyError: a field has none.
    """
    return {f.name: f.metadata["setting"] for f in fields(spec)}


DIGESTS: Mapping[str, Setting] = {
    f"data{_DIGEST}": Setting(pairs_runs=True, fixes_retraining=True, shapes_learning=True),
    f"backbone{_DIGEST}": Setting(pairs_runs=True, fixes_retraining=True, shapes_learning=True),
}
"""Digests of labels and weights. Those of features, such as `log_mel_digest`, are of one kind of input: see `OTHER`."""

OTHER = Setting(fixes_retraining=True)
"""The entry of every other digest; the systems of a study may read different features."""


def held_digests(provenance: Mapping[str, str]) -> dict[str, str]:
    """Return the digests in a provenance, none of which may change on resume."""
    return {name: value for name, value in provenance.items() if name.endswith(_DIGEST)}


def differing_digests(one: Mapping[str, str], other: Mapping[str, str], role: str) -> Iterator[str]:
    """Yield the names of the digests with this role that differ between two provenances."""
    for name in sorted({*held_digests(one), *held_digests(other)}):
        if getattr(DIGESTS.get(name, OTHER), role) and one.get(name) != other.get(name):
            yield name


def differing_fields(one: Any, other: Any, role: str) -> Iterator[str]:
    """Yield the names of the fields with this role that differ between two specs of one class."""
    for name, entry in settings_of(one).items():
        if getattr(entry, role) and getattr(one, name) != getattr(other, name):
            yield name


def terms_in(spec: Any) -> dict[str, Any]:
    """Return a spec's MLflow parameters by name."""
    return {
        entry.term: getattr(spec, name) if entry.reads_as is None else entry.reads_as(spec)
        for name, entry in settings_of(spec).items()
        if entry.term is not None
    }
