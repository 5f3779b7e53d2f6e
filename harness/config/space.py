"""The paths and values of a define-by-run search space, and `--fix`, which holds a part of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from harness.config.study import StudySpec
from harness.config.trial import TrialConfig
from search_spaces import Space, load

_DRAWS = 400

_SYSTEMS = ("system/kind", "reprogrammer/kind")


@dataclass(frozen=True)
class Axes:
    """The observed axes of a space: distributions of its parameters and values of its constants, by path.

    `draws` holds the parameters and the constants of every observed configuration.
    """

    drawn: Mapping[str, BaseDistribution]
    constants: Mapping[str, frozenset[Any]]
    draws: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]

    @property
    def searched(self) -> tuple[str, ...]:
        """Return the paths that a study of the space searches, in alphabetical order."""
        return tuple(sorted(self.drawn))


@cache
def explored(name: str, preset: str | None = None) -> Axes:
    """Return the axes of the named space, explored once a process."""
    return explore(load(name, preset))


def explore(space: Space) -> Axes:
    """Return the axes of a space, from random draws, since a function does not list its branches.

    Raises:
        ValueError: the space draws an invalid configuration.
    """
    drawn: dict[str, BaseDistribution] = {}
    constants: dict[str, set[Any]] = {}
    draws = []
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_DRAWS):
        trial = study.ask()
        held = space.suggest(trial)
        try:
            TrialConfig.from_paths({**trial.params, **held})
        except ValueError as error:
            raise ValueError(f"space {space.name} draws an invalid configuration: {error}") from error
        draws.append((trial.params, held))
        for path, value in held.items():
            constants.setdefault(path, set()).add(value)
        for path, distribution in trial.distributions.items():
            drawn[path] = _wider(drawn.get(path, distribution), distribution)
    return Axes(drawn, {path: frozenset(values) for path, values in constants.items()}, draws)


def configurations(axes: Axes, fixed: Mapping[str, Any]) -> list[TrialConfig]:
    """Return the observed configurations that agree with the fixed choices, or all of them if none does."""
    choices = _choices(fixed, axes)
    seen = [{**params, **constants} for params, constants in axes.draws]
    agreeing = [paths for paths in seen if all(paths.get(path, value) == value for path, value in choices.items())]
    return [TrialConfig.from_paths(paths) for paths in agreeing or seen]


def configuration_of(space: Space, drawn: Mapping[str, Any]) -> TrialConfig:
    """Return a space's configuration with these drawn parameters."""
    return TrialConfig.from_paths({**drawn, **space.suggest(optuna.trial.FixedTrial(dict(drawn)))})


def papers_within(space: Space, fixed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the paper's configurations of the systems that a study holds fixed, or one of them if it has none.

    For a table, return those in the fixed rows and columns.
    """
    kinds = [path for path in fixed if path.endswith("/kind") and (path in _SYSTEMS or space.cell is not None)]
    agreeing = [paper for paper in space.paper if all(paper.get(path, fixed[path]) == fixed[path] for path in kinds)]
    return agreeing or list(space.paper[:1])


def parse_fixed(assignments: Sequence[str], axes: Axes, *, space: str) -> dict[str, Any]:
    """Return the values of `PATH=VALUE` strings, as the space's own types.

    Raises:
        ValueError: the space has no such path or value, or not together with the others; the message names valid ones.
    """
    fixed: dict[str, Any] = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"fix={assignment!r}: must be PATH=VALUE, such as reprogrammer/depth=3")
        if path in fixed:
            raise ValueError(f"fix={assignment!r}: {path} is already fixed to {fixed[path]!r}")
        if path in axes.drawn:
            fixed[path] = _parsed(path, text, axes.drawn[path])
        elif path not in axes.constants:
            raise ValueError(f"fix={assignment!r}: space {space} has no path {path}; it has {', '.join(axes.searched)}")
        else:
            problem = f"fix={assignment}: space {space} holds {path} at"
            fixed[path] = _chosen(text, sorted(axes.constants[path], key=_text), problem=problem)
    for path in fixed:
        _check_branches(path, fixed, axes, space=space)
    return {path: value for path, value in fixed.items() if path in axes.drawn}


def hold_fixed(spec: StudySpec, assignments: Sequence[str]) -> StudySpec:
    """Return a new study with these `PATH=VALUE` held fixed.

    Raises:
        ValueError: the space cannot hold one of them, or one of its systems lacks a figure of the objective.
    """
    axes = explored(spec.space, spec.preset)
    spec = replace(spec, fixed=parse_fixed(assignments, axes, space=spec.space))
    if "params" in spec.objectives and any(c.name == "random_forest" for c in configurations(axes, spec.fixed)):
        raise ValueError(
            f"objective={spec.objective}: the trees of random_forest have no parameters to count; leave it out, as by "
            "--fix system/kind=reprogramming, or choose f1"
        )
    return spec


def _check_branches(path: str, fixed: Mapping[str, Any], axes: Axes, *, space: str) -> None:
    """Refuse a value if a draw with the same other fixed choices holds the path at another value."""
    choices = {other: value for other, value in _choices(fixed, axes).items() if other != path}
    for params, constants in axes.draws:
        is_possible = all(params.get(other, value) == value for other, value in choices.items())
        if is_possible and path not in params and constants.get(path, fixed[path]) != fixed[path]:
            kinds = ", ".join(f"{name}={value}" for name, value in params.items() if name.endswith("/kind"))
            raise ValueError(
                f"fix={path}={_text(fixed[path])}: space {space} holds {path} at {_text(constants[path])} in some "
                f"configurations, such as with {kinds or 'other values'}; fix the path that chooses among them too"
            )


def _choices(fixed: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    """Return the fixed values of categorical paths."""
    return {path: value for path, value in fixed.items() if isinstance(axes.drawn.get(path), CategoricalDistribution)}


def _parsed(path: str, text: str, distribution: BaseDistribution) -> Any:
    """Return the value in a text, in the type and the range of the path's distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return _chosen(text, distribution.choices, problem=f"fix={path}={text}: {path} must be one of")
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    is_whole = isinstance(distribution, IntDistribution)
    try:
        value: Any = int(text) if is_whole else float(text)
        is_inside = distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        is_inside = False
    if not is_inside:
        log = ", drawn by its logarithm" if distribution.log else ""
        raise ValueError(
            f"fix={path}={text}: {path} must be {'a whole number' if is_whole else 'a number'} from "
            f"{distribution.low} to {distribution.high}{log}"
        )
    return value


def _chosen(text: str, values: Collection[Any], *, problem: str) -> Any:
    for value in values:
        if text in (_text(value), str(value)):
            return value
    raise ValueError(f"{problem} {', '.join(map(_text, values))}")


def _text(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _wider(one: Any, other: Any) -> BaseDistribution:
    """Return a distribution over both ranges; Optuna lets numeric ranges differ between trials."""
    if isinstance(one, CategoricalDistribution):
        return one
    low, high = min(one.low, other.low), max(one.high, other.high)
    wider: BaseDistribution = type(one)(low, high, log=one.log, step=one.step)
    return wider
