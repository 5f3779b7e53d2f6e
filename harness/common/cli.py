"""What the commands share: flags, environment, logging, exit codes and error messages."""

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import optuna
import typer

DEFAULT_STORAGE = "studies"


DONE, FELL_SHORT, INTERRUPTED = 0, 1, 130


_RESERVED = ("demo", "openmic", "ast-nano", "ast-base384")


@contextmanager
def said_to_the_user(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Turn errors of the user's and interruptions, SIGTERM among them, into a line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, interrupt)  # before the first trial, and between studies
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FELL_SHORT) from None
    except KeyboardInterrupt:
        typer.echo(f"interrupted; nothing that was computed is lost: {how_to_go_on()}", err=True)
        raise typer.Exit(INTERRUPTED) from None


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


def configure_logging() -> None:
    """Send our warnings to stderr, and leave the root's handlers to Ray."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    for package in ("harness", "tracking"):
        logging.getLogger(package).addHandler(handler)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # "did not complete", of trials that later did
    logging.getLogger("ray.tune.execution.tune_controller").addFilter(_is_no_lost_worker)


def _is_no_lost_worker(record: logging.LogRecord) -> bool:
    """Keep Tune from printing a traceback of its own for a lost worker, which the console reports in a line."""
    return not record.getMessage().startswith("Trial task failed")


def absolute_place(place: str, *, flag: str) -> str:
    """Return a path that exists as an absolute one, since a worker has another working directory.

    A backbone's `@FRAMES` stays behind it.

    Raises:
        ValueError: nothing was given for the flag, which a path would take for the current directory.
    """
    if not place:
        raise ValueError(f"{flag}='': must not be empty; give a name or a path, or leave --{flag} out")
    path = Path(place).expanduser()
    if place in _RESERVED or path.exists():
        return place if place in _RESERVED else str(path.absolute())
    found = re.fullmatch(r"(.+)(@[0-9]+)", place)
    return place if found is None else absolute_place(found[1], flag=flag) + found[2]


Data = Annotated[str, typer.Option(help="demo, openmic, or a directory in OpenMIC-2018's layout.")]

DemoClips = Annotated[int | None, typer.Option(help="Size of the demo set.")]

Split = Annotated[str, typer.Option(help="Validation split: random, public or artist.")]

Fraction = Annotated[
    float, typer.Option(help="Share of the train and validation clips to use, stratified by label: 0.1 for a tenth.")
]

SkipCorrupt = Annotated[bool, typer.Option(help="Leave out unreadable clips, listing them.")]

Seed = Annotated[int, typer.Option(help="Seed of the split, the proposals and the trials.")]

Precision = Annotated[str, typer.Option(help="fp32 or bf16, the backbone's arithmetic in training.")]


Address = Annotated[str | None, typer.Option(help="Ray cluster to join, such as auto. [this machine]")]

Concurrent = Annotated[int | None, typer.Option(help="How many run at a time. [as many as fit]")]

GpusPerTrial = Annotated[float | None, typer.Option(help="GPUs of each that runs, 0.25 for four on one.")]

CpusPerTrial = Annotated[int | None, typer.Option(help="CPU cores of each that runs. [an equal share]")]


Storage = Annotated[str, typer.Option(help="Directory or URI of the studies and their results.")]

TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow store. [SQLite beside the results]", envvar="MLFLOW_TRACKING_URI")
]


def interrupt(_signum: int, _frame: object) -> None:
    """End what runs as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def sigterm_ends_tune_in_order() -> Iterator[None]:
    """Pass SIGTERM on as SIGUSR1, on which Tune ends in order, with its workers; on SIGTERM it aborts.

    Until Tune has put its own handler in place of ours, SIGUSR1 interrupts: by default it would end the process without
    a word.
    """
    on_usr1 = signal.signal(signal.SIGUSR1, interrupt)
    on_sigterm = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        signal.signal(signal.SIGUSR1, on_usr1)
