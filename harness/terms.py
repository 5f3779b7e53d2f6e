"""The terms of a study: all but its seed and its digests that decides what the figures of its trials are of."""

from collections.abc import Iterable
from typing import Any

from harness.spec import StudySpec


def named_terms(spec: StudySpec) -> dict[str, Any]:
    """Return a study's terms, those at their defaults too, by the names that `study.json` has for them.

    Of the demo, the digests tell which it was.
    """
    data = spec.data
    return {
        "data": data.source,
        "split": data.split,
        "validation_fraction": "published" if data.split == "public" else data.validation_fraction,
        "split_seed": data.split_seed,
        "fraction": data.fraction,
        "skips_corrupt": data.skips_corrupt,
        "reveals_all": data.reveals_all,
        "backbone": spec.backbone,
        "precision": spec.precision,
        "epochs": spec.epochs,
        "scheduler": spec.scheduler,
        "objective": spec.objective,
        "preset": spec.preset or "none",
        "fixed": " ".join(f"{path}={value}" for path, value in sorted(spec.fixed.items())) or "none",
    }


def terms_of_all(specs: Iterable[StudySpec]) -> dict[str, str]:
    """Return the terms of several studies: of each all its values, in the order of the studies."""
    of_each = [named_terms(spec) for spec in specs]
    return {name: ", ".join(dict.fromkeys(str(terms[name]) for terms in of_each)) for name in of_each[0]}
