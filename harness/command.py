"""What every command has in common: its environment, its logging, its exit codes, how it says what was wrong."""

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import typer

from harness.signals import interrupt
from tracking.store import absolute_uri, without_password

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


def checked_uri(uri: str | None) -> str | None:
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
