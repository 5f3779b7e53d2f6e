"""Holding a part of a search space: which paths and values a define-by-run space can give, and `--fix`."""

import warnings
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

    `draws` are the parameters and the constants of every configuration seen.
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
    """Return the axes of the space of that name, explored once a process."""
    return explore(load(name, preset))


def explore(space: Space) -> Axes:
    """Return the axes of a space, found by drawing from it at random, since a function cannot be asked.

    Raises:
        ValueError: the space draws what is no configuration.
    """
    drawn: dict[str, BaseDistribution] = {}
    constants: dict[str, set[Any]] = {}
    draws = []
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_DRAWS):
        trial = study.ask()
        held = space.suggest(trial)
        _check_configuration(space.name, trial.params, held)
        draws.append((trial.params, held))
        for path, value in held.items():
            constants.setdefault(path, set()).add(value)
        for path, distribution in trial.distributions.items():
            drawn[path] = _wider(drawn.get(path, distribution), distribution)
    return Axes(drawn, {path: frozenset(values) for path, values in constants.items()}, draws)


def configurations(axes: Axes, fixed: Mapping[str, Any]) -> list[TrialConfig]:
    """Return the configurations seen that agree with the choices that are fixed, or all of them if none does."""
    choices = {path: value for path, value in fixed.items() if _is_choice(axes.drawn.get(path))}
    seen = [{**params, **constants} for params, constants in axes.draws]
    agreeing = [paths for paths in seen if all(paths.get(path, value) == value for path, value in choices.items())]
    return [TrialConfig.from_paths(paths) for paths in agreeing or seen]


def configuration_of(space: Space, drawn: Mapping[str, Any]) -> TrialConfig:
    """Return the configuration that a space makes of these drawn parameters."""
    return TrialConfig.from_paths({**drawn, **space.suggest(optuna.trial.FixedTrial(dict(drawn)))})


def papers_within(space: Space, fixed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the paper's configurations of the systems that a study holds, or one of them if it holds others.

    Of a table, those in the rows and columns that it holds.
    """
    kinds = [path for path in fixed if path.endswith("/kind") and (path in _SYSTEMS or space.cell is not None)]
    agreeing = [paper for paper in space.paper if all(paper.get(path, fixed[path]) == fixed[path] for path in kinds)]
    return agreeing or list(space.paper[:1])


def parse_fixed(assignments: Sequence[str], axes: Axes, *, space: str) -> dict[str, Any]:
    """Return the values that `PATH=VALUE` strings hold fixed, as the space's own types.

    Raises:
        ValueError: a path or a value is not the space's, or not together with the others; the message names the valid
            ones.
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
            fixed[path] = _held(path, text, axes.constants[path], space=space)
    for path in fixed:
        _check_branches(path, fixed, axes, space=space)
    return {path: value for path, value in fixed.items() if path in axes.drawn}


def hold_fixed(spec: StudySpec, assignments: Sequence[str]) -> StudySpec:
    """Return a new study with these `PATH=VALUE` held fixed.

    Raises:
        ValueError: the space cannot hold one of them, or its systems cannot serve the objective.
    """
    axes = explored(spec.space, spec.preset)
    spec = replace(spec, fixed=parse_fixed(assignments, axes, space=spec.space))
    if "params" in spec.objectives and any(c.name == "random_forest" for c in configurations(axes, spec.fixed)):
        raise ValueError(
            f"objective={spec.objective}: the trees of random_forest have no parameters to count; leave it out, as by "
            "--fix system/kind=reprogramming, or choose f1"
        )
    return spec


def _check_configuration(space: str, params: Mapping[str, Any], constants: Mapping[str, Any]) -> None:
    try:
        TrialConfig.from_paths({**params, **constants})
    except ValueError as error:
        raise ValueError(f"space {space} draws what no trial can be: {error}") from error


def _check_branches(path: str, fixed: Mapping[str, Any], axes: Axes, *, space: str) -> None:
    """Refuse a value that some draw, alike in all other choices that are fixed, holds at another one."""
    choices = {other: value for other, value in fixed.items() if other != path and _is_choice(axes.drawn.get(other))}
    for params, constants in axes.draws:
        is_possible = all(params.get(other, value) == value for other, value in choices.items())
        if is_possible and path not in params and constants.get(path, fixed[path]) != fixed[path]:
            kinds = ", ".join(f"{name}={value}" for name, value in params.items() if name.endswith("/kind"))
            raise ValueError(
                f"fix={path}={_text(fixed[path])}: space {space} holds {path} at {_text(constants[path])} in some "
                f"configurations, such as with {kinds or 'other values'}; fix also what chooses among them"
            )


def _is_choice(distribution: BaseDistribution | None) -> bool:
    return isinstance(distribution, CategoricalDistribution)


def describe(distribution: BaseDistribution) -> str:
    """Return the values of an axis in words."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(_text(choice) for choice in distribution.choices)
    if isinstance(distribution, IntDistribution | FloatDistribution):
        log = ", drawn by its logarithm" if distribution.log else ""
        kind = "a whole number" if isinstance(distribution, IntDistribution) else "a number"
        return f"{kind} from {distribution.low} to {distribution.high}{log}"
    raise TypeError(f"distribution {distribution!r} is of no known kind")


def _held(path: str, text: str, values: Collection[Any], *, space: str) -> Any:
    for value in values:
        if text in (_text(value), str(value)):
            return value
    held = ", ".join(sorted(_text(value) for value in values))
    raise ValueError(f"fix={path}={text}: space {space} holds {path} at {held}")


def _parsed(path: str, text: str, distribution: BaseDistribution) -> Any:
    problem = f"fix={path}={text}: {path} must be {describe(distribution)}"
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if _text(choice) == text or str(choice) == text:
                return choice
        raise ValueError(problem)
    try:
        value = int(text) if isinstance(distribution, IntDistribution) else float(text)
    except ValueError:
        raise ValueError(problem) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not distribution._contains(distribution.to_internal_repr(value)):
            raise ValueError(problem)
    return value


def _text(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _wider(one: BaseDistribution, other: BaseDistribution) -> BaseDistribution:
    """Return a distribution over both ranges; Optuna lets numeric ranges differ between trials."""
    if isinstance(one, IntDistribution) and isinstance(other, IntDistribution):
        return IntDistribution(min(one.low, other.low), max(one.high, other.high), log=one.log, step=one.step)
    if isinstance(one, FloatDistribution) and isinstance(other, FloatDistribution):
        return FloatDistribution(min(one.low, other.low), max(one.high, other.high), log=one.log, step=one.step)
    return one
