"""Where MLflow keeps runs: the tracking URI made absolute, the store and the experiment made before anyone needs them.

This module is the project's only door to `import mlflow`. That import takes a second, and so does the first creation
of an SQLite store; both happen in the thread that delivers, never in a study's start.
"""

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
_REMOTE = ("http", "https", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")
_ENVIRONMENT = {
    # With MLflow's own defaults a call to a dead server takes four minutes. The outbox does the retrying.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Address:
    """One experiment of one store. `uri` is absolute.

    Artifacts of an SQLite store go to `artifact_root`, by default the directory `artifacts` beside it; a server's go
    where the server says.
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
        return f"{without_password(self.uri)} {self.experiment}"


def default_uri(directory: Path) -> str:
    """Return the URI of the SQLite store in a directory."""
    return f"{_SQLITE}{directory.absolute() / 'mlflow.db'}"


def absolute_uri(uri: str) -> str:
    """Return the tracking URI that means the same in every process.

    Raises:
        ValueError: a file store (MLflow 3 refuses them), an SQLite store in memory, or an unknown scheme.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    if uri.startswith(_SQLITE) and (path := uri.removeprefix(_SQLITE)):
        return f"{_SQLITE}{Path(path).expanduser().absolute()}"
    if scheme in _REMOTE:
        return uri
    suggestion = default_uri(Path(uri.removeprefix("file:") or "."))
    raise ValueError(
        f"tracking URI {uri!r}: must be sqlite:///PATH, http(s)://HOST:PORT or a database that MLflow knows; "
        f"directories of files are no longer supported by MLflow, {suggestion} would do"
    )


def without_password(uri: str) -> str:
    """Return the URI as it may be printed and written down."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an SQLite store, None for any other store."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def mlflow_client(uri: str) -> "MlflowClient":
    """Import MLflow, set up for a caller that retries by itself, and return a client of `uri`."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient  # noqa: PLC0415  a second, and only for those who deliver

    if database := sqlite_path(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        return MlflowClient(uri)


def ensure_experiment(client: "MlflowClient", address: Address) -> str:
    """Create what does not exist yet of an experiment; return its id.

    Raises:
        ValueError: somebody has deleted the experiment.
    """
    with _quiet():
        found = client.get_experiment_by_name(address.experiment)
    if found is None:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens for chat bots
        location = address.artifact_location()
        return str(client.create_experiment(address.experiment, artifact_location=location, tags=tags))
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"experiment {address.experiment!r} was deleted in {without_password(address.uri)}: bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or use another store"
        )
    return str(found.experiment_id)


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
