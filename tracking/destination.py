"""One MLflow store as the place where records go: finds or makes runs, and tells refusals from outages."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking import names
from tracking.records import Record, is_trial_key
from tracking.store import Address, ensure_experiment, mlflow_client
from tracking.view_keeper import ViewKeeper

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LOG = logging.getLogger(__name__)
# Not being let in is not among them: a password can be set right, a dropped record cannot be brought back.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE")


class RefusedError(Exception):
    """The store will never take this, however often it is asked."""


def is_refusal(error: Exception) -> bool:
    """Tell an error that comes back each time from one that passes."""
    code = getattr(error, "error_code", None)
    if code is not None:
        return code in _REFUSALS
    is_broken = isinstance(error, TypeError | ValueError | LookupError | AttributeError)
    return isinstance(error, RefusedError) or (is_broken and not isinstance(error, OSError))


class Destination:
    """Writes records to one experiment of one store. Calls block, and raise what MLflow raises."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.experiment_id: str | None = None
        self._connection: tuple[MlflowClient, str, ViewKeeper] | None = None
        self._run_ids: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Name the destination for people and files: without its password."""
        return str(self.address)

    def connect(self) -> None:
        """Reach the store, and make store and experiment if there are none."""
        if self._connection is None:
            client = mlflow_client(self.address.uri)
            self.experiment_id = ensure_experiment(client, self.address)
            self._connection = client, self.experiment_id, ViewKeeper(client, self.experiment_id)

    def forget(self) -> None:
        """Drop all that is remembered of the store, which may have been replaced."""
        self._connection = None
        self._run_ids.clear()

    def has_run(self, key: str) -> bool:
        """Tell whether the store knows a run, be it a deleted one."""
        return self._find(key) is not None

    def is_writable(self) -> bool:
        """Try a write that nothing can be wrong with."""
        try:
            client, experiment_id, _ = self._connected()
            client.set_experiment_tag(experiment_id, "harness_probe", "written")
        except Exception as error:
            _LOG.debug("probe of %s: %s", self.name, error)
            return False
        return True

    def apply(self, record: Record) -> None:
        """Do what a record says, and may have said before.

        Raises:
            RefusedError: some of it can never be done; the rest is done.
        """
        actions: Mapping[str, Callable[[Record], None]] = {
            "run": self._open,
            "params": self._write_params,
            "metrics": self._write_metrics,
            "artifact": self._upload,
            "end": self._end,
        }
        actions[record.op](record)

    def _connected(self) -> "tuple[MlflowClient, str, ViewKeeper]":
        self.connect()
        assert self._connection is not None
        return self._connection

    def _open(self, record: Record) -> None:
        client, experiment_id, views = self._connected()
        body = record.body
        run = self._find(record.key)
        if run is None:
            tags = {**body["tags"], names.HARNESS_KEY: record.key, "mlflow.runName": body["name"]}
            if body["parent"]:
                tags["mlflow.parentRunId"] = self._run_id(body["parent"])
            run = client.create_run(experiment_id, start_time=record.time_ms, tags=tags)
        else:
            self._write(run.info.run_id, tags=body["tags"])
            client.update_run(run.info.run_id, status="RUNNING")
        self._run_ids[record.key] = run.info.run_id
        if body.get("labels"):
            views.add_labels(body["labels"])

    def _write_params(self, record: Record) -> None:
        run_id, values = self._run_id(record.key), record.body["values"]
        self._write(run_id, params=values)
        if is_trial_key(record.key) and record.body.get("is_searched", True):
            self._connected()[2].add_trial(run_id, values)

    def _write_metrics(self, record: Record) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415

        step, values = record.body["step"], record.body["values"]
        metrics = [Metric(name, value, record.time_ms, step) for name, value in values.items()]
        self._write(self._run_id(record.key), metrics=metrics)

    def _upload(self, record: Record) -> None:
        path = Path(record.body["path"])
        if not path.exists():
            raise RefusedError(f"{path} no longer exists")
        self._connected()[0].log_artifact(self._run_id(record.key), str(path), record.body["folder"] or None)

    def _end(self, record: Record) -> None:
        run_id = self._run_id(record.key)
        self._write(run_id, tags=record.body["tags"])
        self._connected()[0].set_terminated(run_id, record.body["status"], end_time=record.time_ms)

    def _write(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: list[Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write a batch; where the store refuses it, write item by item, and name those it refuses."""
        from mlflow.entities import Param, RunTag  # noqa: PLC0415

        batch: list[tuple[str, Any]] = [("params", Param(key, value)) for key, value in (params or {}).items()]
        batch += [("metrics", metric) for metric in metrics or []]
        batch += [("tags", RunTag(key, value)) for key, value in (tags or {}).items()]
        try:
            self._log_batch(run_id, batch)
        except Exception as error:
            if len(batch) < 2 or not is_refusal(error):
                raise
            self._write_each(run_id, batch)

    def _write_each(self, run_id: str, batch: list[tuple[str, Any]]) -> None:
        refused = []
        for item in batch:
            try:
                self._log_batch(run_id, [item])
            except Exception as error:
                if not is_refusal(error):
                    raise
                refused.append(f"{item[1].key}: {error}")
        if refused:
            raise RefusedError("; ".join(refused))

    def _log_batch(self, run_id: str, batch: list[tuple[str, Any]]) -> None:
        params, metrics, tags = (
            [item for kind, item in batch if kind == wanted] for wanted in ("params", "metrics", "tags")
        )
        self._connected()[0].log_batch(run_id, params=params, metrics=metrics, tags=tags)

    def _run_id(self, key: str) -> str:
        if key not in self._run_ids:
            run = self._find(key)
            if run is None:
                raise RefusedError(f"run {key} was never opened")
            self._run_ids[key] = run.info.run_id
        return self._run_ids[key]

    def _find(self, key: str) -> "Run | None":
        """Find a run by its key, deleted ones too; the first made, should a lost answer have made two."""
        from mlflow.entities import ViewType  # noqa: PLC0415

        client, experiment_id, _ = self._connected()
        found = client.search_runs(
            [experiment_id],
            f"tags.{names.HARNESS_KEY} = '{key}'",
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None
