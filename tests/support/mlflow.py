"""Real MLflow stores in SQLite files, and the runs of a toy study in them."""

import shutil
import socket
import time
from pathlib import Path

from tracking import names, records
from tracking.mlflow_store import mlflow_client
from tracking.outbox import Outbox
from tracking.uris import default_uri

EXPERIMENT = "reprogramming demo ast-nano"
LABELS = ["accordion", "banjo"]


def new_store(directory, tmp_path_factory):
    """Copy an empty store, made once for all tests: making one takes seconds."""
    empty = tmp_path_factory.getbasetemp() / "empty-store" / "mlflow.db"
    if not empty.exists():
        mlflow_client(default_uri(empty.parent))
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty, directory / "mlflow.db")
    return default_uri(directory)


def open_outbox(study_dir, uri):
    return Outbox(Path(study_dir), uri, experiment=EXPERIMENT, head_start_s=0)


def add_trial(outbox, number, *, epochs=3, status="FINISHED", f1=0.7, **ending):
    study = outbox.study_key
    outbox.add(
        records.open_trial(
            study,
            number,
            name=f"unet-{number:03d}",
            params={names.REPROGRAMMER: "unet", "optimiser/lr": 0.1**number},
            tags={names.SYSTEM: "unet"},
        )
    )
    for epoch in range(1, epochs + 1):
        val = {"macro_f1": f1 * epoch / epochs, "loss": 1 / epoch}
        outbox.add(records.log_epoch(study, number, epoch=epoch, val=val, val_f1=dict.fromkeys(LABELS, f1)))
    outbox.add(records.finish_trial(study, number, status=status, metrics={"macro_f1": f1}, **ending))


def add_study(outbox, *, trials=2, **kwargs):
    outbox.add(records.open_study(outbox.study_key, name="unet-1", labels=LABELS))
    for number in range(trials):
        add_trial(outbox, number, **kwargs)
    outbox.add(records.finish_study(outbox.study_key, status="FINISHED"))


def track_study(study_dir, uri, **kwargs):
    """Record a whole study and deliver it."""
    outbox = open_outbox(study_dir, uri)
    add_study(outbox, **kwargs)
    assert outbox.close(timeout_s=60) == ""


def experiment(uri):
    return mlflow_client(uri).get_experiment_by_name(EXPERIMENT)


def runs(uri, kind="trial"):
    condition, order = f"tags.kind = '{kind}'", ["tags.`mlflow.runName` ASC"]
    return list(mlflow_client(uri).search_runs([experiment(uri).experiment_id], condition, order_by=order))


def history(uri, run, metric):
    return [(point.step, point.value) for point in mlflow_client(uri).get_metric_history(run.info.run_id, metric)]


def wait_until(condition, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
