"""Flags, environment, logging, exit codes and error messages that the commands share.

Importing this module loads no framework: a command checks its flags before it loads torch, Ray and MLflow.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from harness.common.text import first_line

DEFAULT_STORAGE = "studies"

EXIT_OK, EXIT_FAILURE, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 130
"""Exit codes. A command that refuses its flags, or the files they name, changes nothing."""

MIN_DEMO_CLIPS = 200
"""The smallest multiple of the 20 instruments with which, by default, validation has an answer for each of them."""

_RESERVED = ("demo", "openmic", "ast-nano", "ast-base384")

_TRACEBACK = "REPROGRAMMING_TRACEBACK"

_MISSING = (FileExistsError, FileNotFoundError, NotADirectoryError)


@contextmanager
def running(how_to_go_on: Callable[[], str], *, address: str | None) -> Iterator[None]:
    """Run the body of a command that starts Ray: set logging and environment, and report errors in a line."""
    configure_logging()
    prepare_environment(joins_cluster=address is not None)
    with report_errors(how_to_go_on):
        yield


@contextmanager
def report_errors(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Turn errors and interruptions, SIGTERM included, into a line on stderr and an exit code.

    A `ValueError`, or a path that this program finds missing, refuses the command; every other error is a failure. An
    error of a library or of the system ends with `how_to_go_on()`. With REPROGRAMMING_TRACEBACK set, errors pass with
    their traceback.
    """
    signal.signal(signal.SIGTERM, interrupt)  # before the first trial, and between studies
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        typer.echo(f"interrupted; nothing that was computed is lost: {how_to_go_on()}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        is_ours = isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is None)
        is_refusal = is_ours and isinstance(error, (ValueError, *_MISSING))
        typer.echo(f"error: {error}" if is_ours else f"error: {_cause(error)}; {how_to_go_on()}", err=True)
        raise typer.Exit(EXIT_REFUSED if is_refusal else EXIT_FAILURE) from None


def _cause(error: Exception) -> str:
    """Return one line: the message of our own errors and the system's, and a library's with its type."""
    message = first_line(error)
    is_plain = isinstance(error, OSError) or type(error) is RuntimeError
    return message if is_plain else f"{type(error).__name__}: {message}"


def announce(text: str) -> None:
    """Print a line while the frameworks load, which takes seconds."""
    typer.echo(f"{text}: loading torch and Ray", err=True)


def prepare_environment(*, joins_cluster: bool) -> None:
    """Set the variables that Ray, Tune and MLflow read at their import; the user's own settings stay.

    A cluster decides how it authenticates; Ray on this machine alone asks for a token.
    """
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if not joins_cluster:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0, the only quiet setting
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoardX alone imports torch in the driver
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nothing reads Tune's snapshots
}


def configure_logging() -> None:
    """Send our warnings to stderr, and leave the root's handlers to Ray.

    A stream that is not UTF-8 shows `?` for the characters that it lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    for package in ("harness", "tracking"):
        logging.getLogger(package).addHandler(handler)
    for part in ("optuna.storages", "optuna.study"):  # Optuna sets the level of `optuna` itself when it is imported
        logging.getLogger(part).setLevel(logging.WARNING)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # "did not complete", of trials that later did
    logging.getLogger("ray.tune.execution.tune_controller").addFilter(_is_no_lost_worker)


def _is_no_lost_worker(record: logging.LogRecord) -> bool:
    """Hide Tune's own traceback of a lost worker, which the console reports in a line."""
    return not record.getMessage().startswith("Trial task failed")


def absolute_place(place: str, *, flag: str) -> str:
    """Return a path that exists as an absolute one, since a worker has another working directory.

    A backbone's family (`FAMILY:`) stays before it, and its geometry (`@512`, `@frames=512,stride=10x10`) behind it.

    Raises:
        ValueError: the flag is empty; as a path it would mean the current directory.
    """
    if not place:
        raise ValueError(f"{flag}='': must not be empty; give a name or a path, or leave --{flag} out")
    path = Path(place).expanduser()
    if place in _RESERVED or path.exists():
        return place if place in _RESERVED else str(path.absolute())
    found = re.fullmatch(r"([\w-]+:)?(.+?)(@[\w=,]+)?", place)
    if found is None or not (found[1] or found[3]):
        return place
    return (found[1] or "") + absolute_place(found[2], flag=flag) + (found[3] or "")


def check_data(source: str, demo_clips: int | None) -> None:
    """Check that a data set's directory exists, and that the demo set is not too small.

    Raises:
        FileNotFoundError: the directory does not exist.
        ValueError: the demo set is too small.
    """
    if demo_clips is not None and demo_clips < MIN_DEMO_CLIPS:
        raise ValueError(f"demo-clips={demo_clips}: must be at least {MIN_DEMO_CLIPS}")
    if source not in _RESERVED and not Path(source).is_dir():
        what = "is not a directory" if Path(source).exists() else "no such directory"
        raise FileNotFoundError(f"data={source}: {what}; give demo, openmic or a directory with clips")


def check_storage(storage: str) -> None:
    """Check that a local storage can be made and written; a URI is checked when it is opened.

    Raises:
        ValueError: it is empty, a parent is no directory, or this process may not write there.
    """
    if not storage:
        raise ValueError("storage='': must not be empty; give a directory or a URI, or leave --storage out")
    if "://" in storage:
        return
    place = Path(storage).expanduser().absolute()
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"storage={storage}: {there} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"storage={storage}: {there} cannot be written; give another --storage")


Data = Annotated[str, typer.Option(help="demo, openmic, or a directory in OpenMIC-2018's layout.")]

DemoClips = Annotated[int | None, typer.Option(help=f"Size of the demo set, at least {MIN_DEMO_CLIPS}.")]

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
    str | None, typer.Option(help="MLflow store. [MLFLOW_TRACKING_URI, or SQLite beside the results]")
]


def interrupt(_signum: int, _frame: object) -> None:
    """End what runs as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def sigterm_ends_tune_in_order() -> Iterator[None]:
    """Pass SIGTERM on as SIGUSR1, on which Tune ends in order, with its workers; on SIGTERM it aborts.

    SIGUSR1 interrupts until Tune installs its own handler; the default action would end the process silently.
    """
    on_usr1 = signal.signal(signal.SIGUSR1, interrupt)
    on_sigterm = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        signal.signal(signal.SIGUSR1, on_usr1)
