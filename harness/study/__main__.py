"""Run a hyperparameter study of model reprogramming: `python -m harness.study --space unet`."""

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Annotated

import typer

from harness.common import cli as flags
from harness.common.cli import (
    DEFAULT_STORAGE,
    absolute_place,
    announce,
    check_data,
    check_storage,
    running,
)
from harness.config.literature import describe_systems
from harness.config.settings import settings_of
from harness.config.space import hold_fixed, papers_within
from harness.config.study import (
    DataSpec,
    Resources,
    StudyPlace,
    StudySpec,
    check_machine,
    check_name,
    claim_name,
    parse_seconds,
)
from search_spaces import PRESETS, Space, load, names
from tracking.uris import chosen_uri

DEFAULT_TRIALS, DEFAULT_EPOCHS = 12, 6


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    context: typer.Context,
    space: Annotated[str | None, typer.Option(help=f"Search space: {describe_systems(names())}.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Hold the training recipe of the paper or of its released code: paper, released.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help=f"Number of trials, over all runs. [{DEFAULT_TRIALS}, or a space's whole table]")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help=f"Epochs of a trial that is not stopped. [{DEFAULT_EPOCHS}, or the preset's]"),
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop after this long: 90s, 15m, 2h.")] = None,
    data: flags.Data = "demo",
    demo_clips: flags.DemoClips = None,
    split: flags.Split = "random",
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the train clips to validate on.")
    ] = DataSpec.validation_fraction,
    fraction: flags.Fraction = 1.0,
    skip_corrupt: flags.SkipCorrupt = False,
    backbone: Annotated[
        str,
        typer.Option(help="ast-nano, ast-base384, a .safetensors or .pth file, or a directory that holds one."),
    ] = "ast-nano",
    seed: flags.Seed = 0,
    name: Annotated[str | None, typer.Option(help="Name of the new study. [the space and a number]")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with the study of this name; --trials extends it.")] = None,
    concurrent: flags.Concurrent = None,
    gpus_per_trial: flags.GpusPerTrial = None,
    cpus_per_trial: flags.CpusPerTrial = None,
    fix: Annotated[list[str] | None, typer.Option(help="PATH=VALUE: hold a part of the space. Repeatable.")] = None,
    storage: flags.Storage = DEFAULT_STORAGE,
    tracking_uri: flags.TrackingUri = None,
    address: flags.Address = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Early stopping: asha, median or none. [asha, or none with f1,params or a table]")
    ] = None,
    objective: Annotated[str, typer.Option(help="f1, or f1,params for a Pareto front.")] = "f1",
    precision: flags.Precision = "fp32",
) -> None:
    """Parse the flags, run the study, exit with its code."""
    place: StudyPlace | None = None

    def how_to_go_on() -> str:
        has_begun = place is not None and place.has_begun()
        return f"resume by --resume {place.home.name}" if place and has_begun else "run the same command again"

    with running(how_to_go_on, address=address):
        _refuse_ignored(context)
        resources = Resources(address, concurrent, gpus_per_trial, cpus_per_trial)
        budget = parse_seconds(time_budget) if time_budget is not None else float("inf")
        tracking_uri = chosen_uri(tracking_uri, is_new=resume is None)
        check_storage(storage)
        check_machine(resources)
        if resume is not None:
            check_name(resume, flag="resume")
            place = StudyPlace.of(storage, resume)
            # a directory of studies may have moved since
            spec = replace(place.read_spec().extended(trials=trials, tracking_uri=tracking_uri), storage=storage)
        else:
            if space is None:
                raise ValueError(f"space: missing; give --space with one of {', '.join(names())}, or --resume NAME")
            table = load(space, preset)
            spec = StudySpec(
                name=name or f"{space}-1",
                space=space,
                preset=preset,
                trials=default_trials(table, fix or ()) if trials is None else trials,
                epochs=(PRESETS[preset].epochs if preset else DEFAULT_EPOCHS) if epochs is None else epochs,
                backbone=absolute_place(backbone, flag="backbone"),
                data=DataSpec(
                    source=absolute_place(data, flag="data"),
                    demo_clips=demo_clips,
                    split=split,
                    validation_fraction=validation_fraction,
                    split_seed=seed,
                    fraction=fraction,
                    skips_corrupt=skip_corrupt,
                ),
                seed=seed,
                storage=storage,
                objective=objective,
                scheduler=scheduler or ("asha" if objective == "f1" and table.cell is None else "none"),
                precision=precision,
                tracking_uri=tracking_uri,
            )
            check_data(spec.data.source, demo_clips)
            hold_fixed(spec, fix or [])
            spec = spec if name else replace(spec, name=claim_name(storage, space))
            place = StudyPlace.of(storage, spec.name)
            place.check_is_free()
        announce(f"study {spec.name}")
        # Ray reads the environment when it is imported
        from harness.study.run import run_study  # noqa: PLC0415

        code = run_study(
            spec, place, assignments=None if resume else fix or [], resources=resources, time_budget=budget
        )
    raise typer.Exit(code)


def default_trials(space: Space, assignments: Sequence[str] = ()) -> int:
    """Return the default number of trials; for a table, the number of its configurations under these assignments."""
    if space.cell is None:
        return DEFAULT_TRIALS
    fixed = (assignment.partition("=") for assignment in assignments)
    return len(papers_within(space, {path: value for path, _, value in fixed}))


def _refuse_ignored(context: typer.Context) -> None:
    """Refuse flags that another flag would leave without effect.

    Raises:
        ValueError: there is one; the message names both.
    """
    sources = {name: context.get_parameter_source(name) for name in context.params}
    # by name, since typer may bring a click of its own
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    is_demo, is_public = context.params["data"] == "demo", context.params["split"] == "public"
    rules = (
        ("resume", given - _GO_WITH_RESUME if "resume" in given else set(), "a study keeps what it began with"),
        ("data", set() if is_demo else given & {"demo_clips"}, "only the demo set has a size to choose"),
        ("split=public", given & {"validation_fraction"} if is_public else set(), "the published split is fixed"),
    )
    for flag, ignored, why in rules:
        if ignored:
            named = ", ".join(sorted("--" + name.replace("_", "-") for name in ignored))
            raise ValueError(f"{flag}: cannot go with {named}; {why}")


_GO_WITH_RESUME = {
    "resume",
    "time_budget",
    *(field.name for field in fields(Resources)),
    *(name for name, entry in settings_of(StudySpec).items() if entry.may_change_on_resume),
}


if __name__ == "__main__":
    sys.exit(app())
