"""The one table of the settings that make studies comparable: each field of a spec says what it decides.

A field of `StudySpec` or `DataSpec` is declared with `setting(...)`; `DIGESTS` is about those in a study's provenance.
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

    `may_change_on_resume`: a study that is resumed may have another value.
    `pairs_runs`: it decides which clips are scored and what reads them, so only runs with the same value are compared.
    `fixes_retraining`: the runs of one evaluation that come from one study all have the same value.
    `shapes_learning`: a configuration learns something else under another value.
    `is_free_in_reproduction`: a reproduction that continues may have another value.
    `term`: its name among the MLflow parameters, which old databases have too. `reads_as` turns the spec into the value
    shown there.
    `in_experiment`: turns a study into the words that the name of its experiment has for the setting, or none.
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
"""The entry of every other digest; other systems of a study may read other features."""


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
