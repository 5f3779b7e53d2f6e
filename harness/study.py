"""Run a hyperparameter study of model reprogramming: `python -m harness.study --space unet`."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.spec import DataSpec, Resources, StudyPlace, StudySpec, free_name, parse_seconds
from search_spaces import load, names
from tracking.store import absolute_uri, without_password

DEFAULT_TRIALS, DEFAULT_EPOCHS = 12, 6

DEFAULT_STORAGE = "studies"

DONE, FELL_SHORT, INTERRUPTED = 0, 1, 130

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    context: typer.Context,
    space: Annotated[str | None, typer.Option(help=f"Search space: {', '.join(names())}.")] = None,
    trials: Annotated[int | None, typer.Option(help=f"Number of trials, over all runs. [{DEFAULT_TRIALS}]")] = None,
    epochs: Annotated[
        int | None, typer.Option(help=f"Epochs of a trial that is not stopped. [{DEFAULT_EPOCHS}]")
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop after this long: 90s, 15m, 2h.")] = None,
    data: Annotated[str, typer.Option(help="demo, openmic, or a directory in OpenMIC-2018's layout.")] = "demo",
    demo_clips: Annotated[int | None, typer.Option(help="Size of the demo set.")] = None,
    split: Annotated[str, typer.Option(help="Validation split: random, public or artist.")] = "random",
    validation_fraction: Annotated[float, typer.Option(help="Share of the train clips to validate on.")] = 0.15,
    skip_corrupt: Annotated[bool, typer.Option(help="Leave out unreadable clips, listing them.")] = False,
    backbone: Annotated[
        str,
        typer.Option(help="ast-nano, ast-base384-random, a .safetensors file, or a directory that holds one."),
    ] = "ast-nano",
    seed: Annotated[int, typer.Option(help="Seed of the split, the proposals and the trials.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the new study. [the space and a number]")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with the study of this name; --trials extends it.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at a time. [as many as fit]")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of a trial, 0.25 for four on one.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPU cores of a trial. [an equal share]")] = None,
    fix: Annotated[list[str] | None, typer.Option(help="PATH=VALUE: hold a part of the space. Repeatable.")] = None,
    storage: Annotated[str, typer.Option(help="Directory or URI for results.")] = DEFAULT_STORAGE,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store. [SQLite beside the results]")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, such as auto. [this machine]")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Early stopping: asha, median or none. [asha, or none with f1,params]")
    ] = None,
    objective: Annotated[str, typer.Option(help="f1, or f1,params for a Pareto front.")] = "f1",
    precision: Annotated[str, typer.Option(help="fp32 or bf16, the backbone's arithmetic in training.")] = "fp32",
) -> None:
    """Parse the flags, run the study, exit with its code."""
    _configure_logging()
    prepare_environment(joins_cluster=address is not None)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _refuse_ignored(context)
        resources = Resources(address, concurrent, gpus_per_trial, cpus_per_trial)
        budget = parse_seconds(time_budget) if time_budget is not None else float("inf")
        tracking_uri = _checked_uri(tracking_uri)
        if resume is not None:
            place = StudyPlace.of(storage, resume)
            spec = place.read_spec().extended(trials=trials, tracking_uri=tracking_uri)
        else:
            if space is None:
                raise ValueError(f"space: missing; give --space with one of {', '.join(names())}, or --resume NAME")
            load(space)
            spec = StudySpec(
                name=name or free_name(storage, space),
                space=space,
                trials=DEFAULT_TRIALS if trials is None else trials,
                epochs=DEFAULT_EPOCHS if epochs is None else epochs,
                backbone=_absolute(backbone),
                data=DataSpec(
                    source=_absolute(data),
                    demo_clips=demo_clips,
                    split=split,
                    validation_fraction=validation_fraction,
                    split_seed=seed,
                    skips_corrupt=skip_corrupt,
                ),
                seed=seed,
                storage=storage,
                objective=objective,
                scheduler=scheduler or ("asha" if objective == "f1" else "none"),
                precision=precision,
                tracking_uri=tracking_uri,
            )
            place = StudyPlace.of(storage, spec.name)
        # Ray reads the environment when it is imported, and a wrong flag need not wait for it
        from harness.run_study import run_study  # noqa: PLC0415

        outcome = run_study(
            spec, place, assignments=None if resume else fix or [], resources=resources, time_budget=budget
        )
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FELL_SHORT) from None
    except KeyboardInterrupt:
        again = f"go on with --resume {place.home.name}" if place.has_begun() else "run the same command again"
        typer.echo(f"interrupted; nothing that was computed is lost: {again}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(outcome)


def prepare_environment(*, joins_cluster: bool) -> None:
    """Set what Ray, Tune and MLflow read from the environment when they are imported, unless the user has.

    How a cluster authenticates is the cluster's affair; Ray on this machine alone asks for a token.
    """
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if not joins_cluster:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that was given no GPU sees none
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0, the only quiet setting
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoardX alone imports torch in the driver
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # snapshots of Tune's that nothing reads
}


def _configure_logging() -> None:
    """Send our warnings to stderr, and leave the root's handlers to Ray."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    for package in ("harness", "tracking"):
        logging.getLogger(package).addHandler(handler)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # "did not complete", of trials that later did
    logging.getLogger("ray.tune.execution.tune_controller").addFilter(_is_no_lost_worker)


def _is_no_lost_worker(record: logging.LogRecord) -> bool:
    """Keep Tune from printing a traceback of its own for a lost worker, which the console reports in a line."""
    return not record.getMessage().startswith("Trial task failed")


def _interrupt(_signum: int, _frame: object) -> None:
    """Let SIGTERM before the first trial end as Ctrl-C does."""
    raise KeyboardInterrupt


def _checked_uri(uri: str | None) -> str | None:
    """Return the tracking URI as it means the same from every directory.

    Raises:
        ValueError: it is none that MLflow takes, or carries a password, which would be written to disk.
    """
    if uri is None:
        return None
    if without_password(uri) != uri:
        raise ValueError(
            "tracking-uri: leave the password out and give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "in the environment"
        )
    return absolute_uri(uri)


def _absolute(place: str) -> str:
    """Return a path that exists as an absolute one, since a worker has another working directory."""
    path = Path(place).expanduser()
    return str(path.absolute()) if place not in _RESERVED and path.exists() else place


def _refuse_ignored(context: typer.Context) -> None:
    """Refuse flags that another flag would leave without effect.

    Raises:
        ValueError: there is one; the message names both.
    """
    sources = {name: context.get_parameter_source(name) for name in context.params}
    # by name, since typer may bring a click of its own
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    if "resume" in given:
        _refuse(given - _GO_WITH_RESUME, "resume", "a study keeps what it began with")
    if context.params["data"] != "demo":
        _refuse(given & {"demo_clips"}, "data", "only the demo set has a size to choose")
    if context.params["split"] == "public":
        _refuse(given & {"validation_fraction"}, "split=public", "the published split is fixed")


def _refuse(flags: set[str], beside: str, why: str) -> None:
    if flags:
        named = ", ".join(sorted("--" + flag.replace("_", "-") for flag in flags))
        raise ValueError(f"{beside}: cannot go with {named}; {why}")


_RESERVED = ("demo", "openmic", "ast-nano")
_GO_WITH_RESUME = {
    "resume",
    "trials",
    "time_budget",
    "concurrent",
    "gpus_per_trial",
    "cpus_per_trial",
    "storage",
    "tracking_uri",
    "address",
}


if __name__ == "__main__":
    sys.exit(app())
