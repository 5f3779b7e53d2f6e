"""The MLflow store of a study: its experiment, and how records become runs.

`mlflow_client` is the project's door to `import mlflow`. That import takes a second, and creating an SQLite store two;
the delivery thread does both, never the start of a study.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from tracking import names
from tracking.records import Record, is_trial_key
from tracking.uris import sqlite_path, sqlite_uri
from tracking.views import ViewKeeper

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_ENVIRONMENT = {
    # MLflow's own retries block four minutes on a dead server, and may create a run twice. The outbox retries itself.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the terminal is the study's
}
# Authentication errors are not among them: a user can correct a password, but nobody brings back a dropped record.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE")


@dataclass(frozen=True)
class Address:
    """One experiment of one store; `uri` is absolute.

    The artifacts of an SQLite store go to the directory `artifacts` beside it; a server decides about its own.
    """

    uri: str
    experiment: str

    @property
    def artifact_directory(self) -> Path | None:
        """Return the directory of the experiment's artifacts, None where a server decides."""
        database = sqlite_path(self.uri)
        return database.parent / "artifacts" / self.experiment.replace(" ", "-") if database else None

    @property
    def is_missing(self) -> bool:
        """Return whether the address names an SQLite file that does not exist."""
        database = sqlite_path(self.uri)
        return database is not None and not database.exists()

    def __str__(self) -> str:
        return f"{sqlite_path(self.uri) or self.uri} ({self.experiment})"


def prepare_environment() -> None:
    """Configure MLflow for a caller that retries by itself; the user's settings stay. Call it in the main thread."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def load_mlflow() -> None:
    """Import MLflow now, for a program in which two threads would otherwise import it at once."""
    prepare_environment()
    import mlflow  # noqa: F401, PLC0415


def mlflow_client(uri: str) -> "MlflowClient":
    """Import MLflow and return a client of `uri`; an SQLite store that does not exist is created."""
    prepare_environment()
    from mlflow import MlflowClient  # noqa: PLC0415  takes a second, and only delivery needs it

    with _quiet(), _no_stray_directory(uri):
        if database := sqlite_path(uri):
            _ensure_sqlite(database)
        return MlflowClient(uri)


def find_experiment(client: "MlflowClient", address: Address) -> "Experiment | None":
    """Return the experiment of an address, None if there is none.

    Raises:
        ValueError: the experiment was deleted.
    """
    found = client.get_experiment_by_name(address.experiment)
    if found is not None and found.lifecycle_stage != "active":
        raise ValueError(
            f"the experiment of {address} was deleted; `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}` brings it back"
        )
    return found


def ensure_experiment(client: "MlflowClient", address: Address) -> str:
    """Return the id of an experiment; create the experiment if there is none."""
    if found := find_experiment(client, address):
        return str(found.experiment_id)
    tags = {"mlflow.experimentKind": "custom_model_development"}  # otherwise the UI opens for chat bots
    directory = address.artifact_directory
    location = directory.as_uri() if directory else None
    return str(client.create_experiment(address.experiment, artifact_location=location, tags=tags))


def follow_move(address: Address) -> None:
    """Correct the artifact paths of an SQLite store that was moved: MLflow stores them as absolute."""
    directory, database = address.artifact_directory, sqlite_path(address.uri)
    if directory is None or database is None:
        return
    new = directory.as_uri()
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        experiment = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
        number, old = connection.execute(experiment, (address.experiment,)).fetchone() or (None, new)
        is_ours = old.startswith("file:") and old.endswith(f"/artifacts/{new.rpartition('/')[2]}")
        if old == new or not is_ours or (Path(unquote(urlsplit(old).path)).exists() and not directory.exists()):
            return
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, number))
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (new, len(old) + 1, number, len(old), old),
        )


class RefusedError(ValueError):
    """The store will never take a record, or a part of it."""


def is_refusal(error: Exception) -> bool:
    """Return whether an error comes back at each try."""
    code = getattr(error, "error_code", None)
    if code is not None:
        return code in _REFUSALS
    return isinstance(error, TypeError | ValueError | LookupError | AttributeError) and not isinstance(error, OSError)


class Store:
    """Writes records to one experiment of one store. Calls block, and raise MLflow's errors."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.experiment_id: str | None = None
        self._connection: tuple[MlflowClient, str, ViewKeeper] | None = None
        self._run_ids: dict[str, str] = {}

    def connect(self) -> "tuple[MlflowClient, str, ViewKeeper]":
        """Return the client, the experiment's id and its views; make store and experiment if there are none."""
        if self._connection is None:
            client = mlflow_client(self.address.uri)
            follow_move(self.address)
            self.experiment_id = ensure_experiment(client, self.address)
            self._connection = client, self.experiment_id, ViewKeeper(client, self.experiment_id)
        return self._connection

    def forget(self) -> None:
        """Forget the connection and all run ids: the store may have been replaced."""
        self._connection = None
        self._run_ids.clear()

    def has_run(self, key: str) -> bool:
        """Return whether the store has a run, deleted ones included."""
        return self._find(key) is not None

    def is_up(self) -> bool:
        """Return whether the store answers a question."""
        try:
            client, experiment_id, _ = self.connect()
            client.get_experiment(experiment_id)
        except Exception:
            return False
        return True

    def apply(self, record: Record) -> None:
        """Write a record, for the first time or again.

        Raises:
            RefusedError: the store refuses some of it; the rest is written.
        """
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        if record.op == "run":
            self._open(record)
            return
        client, _, views = self.connect()
        run_id, body = self._run_id(record.key), record.body
        match record.op:
            case "params":
                self._write(run_id, "params", [Param(*param) for param in body["values"].items()])
                if is_trial_key(record.key) and body.get("is_searched", True):
                    views.add_trial(run_id, body["values"])
            case "metrics":
                values = body["values"].items()
                self._write(
                    run_id, "metrics", [Metric(name, value, record.time_ms, body["step"]) for name, value in values]
                )
            case "artifact":
                if not Path(body["path"]).exists():
                    raise RefusedError(f"{body['path']} no longer exists")
                client.log_artifact(run_id, body["path"], body["folder"] or None)
            case "end":
                self._write_tags(run_id, body["tags"])
                client.set_terminated(run_id, body["status"], end_time=record.time_ms)
            case _:
                assert_never(record.op)

    def _open(self, record: Record) -> None:
        client, experiment_id, views = self.connect()
        body = record.body
        run = self._find(record.key)
        if run is None:
            tags = {**body["tags"], names.HARNESS_KEY: record.key, "mlflow.runName": body["name"]}
            if body["parent"]:
                tags["mlflow.parentRunId"] = self._run_id(body["parent"])
            run = client.create_run(experiment_id, start_time=record.time_ms, tags=tags)
        else:
            self._write_tags(run.info.run_id, body["tags"])
            client.update_run(run.info.run_id, status="RUNNING")
        self._run_ids[record.key] = run.info.run_id
        views.add_columns(body.get("labels", ()), body.get("metrics", ()))

    def _write(self, run_id: str, kind: Literal["params", "metrics", "tags"], items: Sequence[Any]) -> None:
        """Write MLflow's entities; if the store refuses them together, write them singly and name the refused ones."""
        write: Callable[..., object] = partial(self.connect()[0].log_batch, run_id)
        try:
            write(**{kind: items})
            return
        except Exception as error:
            if len(items) < 2 or not is_refusal(error):
                raise
        refused = []
        for item in items:
            try:
                write(**{kind: [item]})
            except Exception as error:
                if not is_refusal(error):
                    raise
                refused.append(f"{item.key}: {error}")
        if refused:
            raise RefusedError("; ".join(refused))

    def _write_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag  # noqa: PLC0415

        self._write(run_id, "tags", [RunTag(*tag) for tag in tags.items()])

    def _run_id(self, key: str) -> str:
        if key not in self._run_ids:
            run = self._find(key)
            if run is None:
                raise RefusedError(f"run {key} was never opened")
            self._run_ids[key] = run.info.run_id
        return self._run_ids[key]

    def _find(self, key: str) -> "Run | None":
        """Find a run by its key, deleted ones too; the older one if a lost answer has made two."""
        from mlflow.entities import ViewType  # noqa: PLC0415

        client, experiment_id, _ = self.connect()
        found = client.search_runs(
            [experiment_id],
            f"tags.{names.HARNESS_KEY} = '{key}'",
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None


def _ensure_sqlite(database: Path) -> None:
    """Create a store under another name and move it into place.

    MLflow's migrations leave a broken store if they are killed half-way, or if two processes run them at once.
    """
    from mlflow import MlflowClient  # noqa: PLC0415

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        if database.exists() and database.stat().st_size:
            return
        scratch = database.with_name(f"{database.name}.new")
        scratch.unlink(missing_ok=True)
        MlflowClient(sqlite_uri(scratch))
        scratch.replace(database)


@contextmanager
def _no_stray_directory(uri: str) -> Iterator[None]:
    """Remove the directory that MLflow makes after the escaped spelling of a path."""
    database, spelled = sqlite_path(uri), Path(uri.removeprefix("sqlite:///")).parent
    strays = [place for place in (spelled, *spelled.parents) if not place.exists()]
    try:
        yield
    finally:
        for place in strays:
            if database is not None and not database.is_relative_to(place):
                with suppress(OSError):  # not there, or no longer empty
                    place.rmdir()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log of schema migrations off the terminal; no handler is touched."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
