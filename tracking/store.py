"""Where MLflow keeps runs: addresses that mean the same everywhere, stores and experiments made when needed.

`mlflow_client` is the project's door to `import mlflow`. That import takes a second and the first creation of an
SQLite store two; both happen in the thread that delivers, never in a study's start.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "postgresql", "mysql", "mssql", "databricks")
_ENVIRONMENT = {
    # MLflow's own defaults block four minutes on a dead server, and may create a run twice. The outbox does the
    # retrying, and looks first whether the run is there.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the terminal is the study's
}


@dataclass(frozen=True)
class Address:
    """One experiment of one store; `uri` is absolute.

    Artifacts of an SQLite store go to `artifact_root`, by default the directory `artifacts` beside it; those of a
    server go where the server says.
    """

    uri: str
    experiment: str
    artifact_root: Path | None = None

    def artifact_location(self) -> str | None:
        """Return where a new experiment keeps its artifacts, None to leave it to the server."""
        database = sqlite_path(self.uri)
        root = self.artifact_root or (database.parent / "artifacts" if database else None)
        return (root.absolute() / self.experiment.replace(" ", "-")).as_uri() if root else None

    def __str__(self) -> str:
        return f"{without_password(self.uri)} ({self.experiment})"


def default_uri(directory: Path) -> str:
    """Return the URI of the SQLite store in a directory."""
    return f"{_SQLITE}{directory.absolute() / 'mlflow.db'}"


def absolute_uri(uri: str) -> str:
    """Return the tracking URI that means the same in every process.

    Raises:
        ValueError: a directory (MLflow 3 refuses file stores), a database in memory, or an unknown scheme.
    """
    scheme, colon, _ = uri.partition(":")
    if uri.startswith(_SQLITE) and (path := uri.removeprefix(_SQLITE)):
        return f"{_SQLITE}{Path(path).expanduser().absolute()}"
    if colon and scheme.partition("+")[0] in _SCHEMES:
        return uri
    suggestion = default_uri(Path(uri.removeprefix("file://").removeprefix("file:"))) if uri else "sqlite:///PATH"
    raise ValueError(
        f"tracking URI {uri!r}: must be sqlite:///PATH, http(s)://HOST:PORT or a database server's URI. "
        f"MLflow no longer keeps runs in directories; did you mean {suggestion}?"
    )


def without_password(uri: str) -> str:
    """Return the URI as it may be printed and written down."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an absolute SQLite URI, None for any other store."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def prepare_environment() -> None:
    """Set up MLflow for a caller that retries by itself; what the user has set stays.

    Call it from the main thread: the environment is no thread's own.
    """
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def mlflow_client(uri: str) -> "MlflowClient":
    """Import MLflow and return a client of `uri`; an SQLite store that does not exist is created."""
    prepare_environment()
    from mlflow import MlflowClient  # noqa: PLC0415  a second, and only for those who deliver

    with _quiet():
        if database := sqlite_path(uri):
            _ensure_sqlite(database)
        return MlflowClient(uri)


def load_mlflow() -> None:
    """Import MLflow now, for a program in which two threads would otherwise import it at the same time."""
    prepare_environment()
    import mlflow  # noqa: F401, PLC0415


def ensure_experiment(client: "MlflowClient", address: Address) -> str:
    """Return an experiment's id; create the experiment if there is none.

    Raises:
        ValueError: somebody has deleted the experiment.
    """
    found = client.get_experiment_by_name(address.experiment)
    if found is None:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens for chat bots
        location = address.artifact_location()
        return str(client.create_experiment(address.experiment, artifact_location=location, tags=tags))
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"the experiment of {address} was deleted; `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}` brings it back"
        )
    return str(found.experiment_id)


def _ensure_sqlite(database: Path) -> None:
    """Create a store under another name and move it into place.

    MLflow's migrations leave a broken store when they are killed half-way, or run by two processes at once.
    """
    from mlflow import MlflowClient  # noqa: PLC0415

    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists() and database.stat().st_size:
            return
        scratch = database.with_name(f"{database.name}.new")
        scratch.unlink(missing_ok=True)
        MlflowClient(f"{_SQLITE}{scratch}")
        scratch.replace(database)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the news of schema migrations from the terminal; no handler is touched."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
