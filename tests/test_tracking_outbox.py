"""The outbox against a real MLflow with an SQLite store."""

import contextlib
import json
import shutil
import sqlite3
import threading
import time

import pytest

from tracking import names, records
from tracking.outbox import Outbox
from tracking.store import default_uri, mlflow_client

# MLflow 3.17 still uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

EXPERIMENT = "reprogramming demo ast-nano"
LABELS = ["accordion", "banjo"]


def new_store(directory, tmp_path_factory):
    """Copy an empty store, made once for all tests: making one takes seconds."""
    empty = tmp_path_factory.getbasetemp() / "empty-store" / "mlflow.db"
    if not empty.exists():
        mlflow_client(default_uri(empty.parent))
    directory.mkdir(exist_ok=True)
    shutil.copy(empty, directory / "mlflow.db")
    return default_uri(directory)


@pytest.fixture
def uri(tmp_path, tmp_path_factory):
    return new_store(tmp_path, tmp_path_factory)


@pytest.fixture
def open_outbox(uri, tmp_path):
    """Open the study's outbox as a driver does; whatever a test leaves open is closed."""
    opened = []

    def open_one(study="study", *, at=uri):
        opened.append(Outbox(tmp_path / study, at, experiment=EXPERIMENT, head_start_s=0))
        return opened[-1]

    yield open_one
    for outbox in opened:
        outbox.close(timeout_s=20)


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
    metrics = {"macro_f1": f1}
    outbox.add(records.finish_trial(study, number, status=status, metrics=metrics, **ending))


def add_study(outbox, *, trials=2, **kwargs):
    outbox.add(records.open_study(outbox.study_key, name="unet-1", labels=LABELS))
    for number in range(trials):
        add_trial(outbox, number, **kwargs)
    outbox.add(records.finish_study(outbox.study_key, status="FINISHED"))


def runs(uri, kind="trial"):
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs(
        [experiment.experiment_id], f"tags.kind = '{kind}'", order_by=["tags.`mlflow.runName` ASC"]
    )
    return list(found)


def history(uri, run, metric):
    return [(point.step, point.value) for point in mlflow_client(uri).get_metric_history(run.info.run_id, metric)]


def wait_until(condition, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_study_arrives_whole(open_outbox, uri):
    outbox = open_outbox()
    add_study(outbox)
    closing = outbox.close(timeout_s=30)
    assert (closing.left, closing.rejected, closing.message) == (0, 0, "")
    (study,), trials = runs(uri, "study"), runs(uri)
    assert [trial.info.run_name for trial in trials] == ["unet-000", "unet-001"]
    assert {trial.data.tags["mlflow.parentRunId"] for trial in trials} == {study.info.run_id}
    assert {run.info.status for run in (study, *trials)} == {"FINISHED"}
    assert trials[0].data.params == {names.REPROGRAMMER: "unet", "optimiser/lr": "1.0", "optimiser/log10_lr": "0.0000"}
    assert history(uri, trials[0], "val_f1/banjo") == [(1, 0.7), (2, 0.7), (3, 0.7)]
    assert history(uri, trials[0], "macro_f1") == [(0, 0.7)]


def test_a_trial_keeps_the_times_at_which_things_happened(open_outbox, uri):
    before = time.time_ns() // 1_000_000
    outbox = open_outbox()
    add_study(outbox, trials=1)
    after = time.time_ns() // 1_000_000
    outbox.close(timeout_s=30)
    (trial,) = runs(uri)
    assert before <= trial.info.start_time <= trial.info.end_time <= after


def test_files_arrive_as_artifacts_beside_the_store(open_outbox, uri, tmp_path):
    figure = tmp_path / "f1.png"
    figure.write_bytes(b"picture")
    outbox = open_outbox()
    add_study(outbox, trials=1, artifacts={"figures": [figure]})
    outbox.close(timeout_s=30)
    (trial,) = runs(uri)
    assert [file.path for file in mlflow_client(uri).list_artifacts(trial.info.run_id, "figures")] == ["figures/f1.png"]
    assert (tmp_path / "artifacts").is_dir()


def test_adding_takes_no_time_even_while_mlflow_is_busy(open_outbox):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    outbox.add(records.open_trial(outbox.study_key, 0, name="unet-000", params={}))
    slowest = 0.0
    for epoch in range(200):
        start = time.perf_counter()
        outbox.add(records.log_epoch(outbox.study_key, 0, epoch=epoch, val={"loss": 1.0}))
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.5, "0.3 ms on average; the rest is this machine's other work"


def test_the_same_study_said_again_after_a_restart_changes_nothing(open_outbox, uri):
    first = open_outbox()
    add_study(first)
    first.close(timeout_s=30)
    again = open_outbox()
    assert again.study_key == first.study_key
    assert again.has_epoch(1, 3)
    assert not again.has_epoch(1, 4)
    assert again.has_ended(1)
    for number in range(2):
        again.add(records.log_epoch(again.study_key, number, epoch=2, val={"macro_f1": 0.99}, val_f1={"banjo": 0.99}))
    again.close(timeout_s=30)
    assert len(runs(uri)) == 2
    assert history(uri, runs(uri)[0], "val_f1/banjo") == [(1, 0.7), (2, 0.7), (3, 0.7)]


def test_everything_delivered_twice_leaves_no_trace(open_outbox, uri, tmp_path):
    figure = tmp_path / "f1.png"
    figure.write_bytes(b"picture")
    first = open_outbox()
    add_study(first, artifacts={"figures": [figure]})
    first.close(timeout_s=30)
    (tmp_path / "study" / "outbox.delivered.json").unlink()
    assert open_outbox().close(timeout_s=30).left == 0
    trials = runs(uri)
    assert len(trials) == 2
    assert len(runs(uri, "study")) == 1
    assert {run.info.status for run in trials} == {"FINISHED"}
    assert history(uri, trials[1], "val/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert history(uri, trials[1], "macro_f1") == [(0, 0.7)]
    assert len(mlflow_client(uri).list_artifacts(trials[0].info.run_id, "figures")) == 1


def test_a_killed_trial_that_goes_on_is_running_and_then_finished(open_outbox, uri):
    first = open_outbox()
    first.add(records.open_study(first.study_key, name="unet-1"))
    add_trial(first, 0, epochs=2, status="KILLED")
    first.close(timeout_s=30)
    assert [run.info.status for run in runs(uri)] == ["KILLED"]
    again = open_outbox()
    assert again.has_ended(0)
    again.add(records.open_trial(again.study_key, 0, name="unet-000", params={}))
    assert not again.has_ended(0)
    add_trial(again, 0, epochs=3)
    again.close(timeout_s=30)
    (trial,) = runs(uri)
    assert trial.info.status == "FINISHED"
    assert [step for step, _ in history(uri, trial, "val/loss")] == [1, 2, 3]


def test_two_studies_of_one_name_in_one_store_stay_apart(open_outbox, uri):
    for directory in ("here/unet-1", "there/unet-1"):
        outbox = open_outbox(directory)
        add_study(outbox, trials=1)
        outbox.close(timeout_s=30)
    assert len(runs(uri, "study")) == 2
    assert len(runs(uri)) == 2


def test_what_mlflow_refuses_is_set_aside_and_the_rest_arrives(open_outbox, uri, tmp_path):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    params = {names.REPROGRAMMER: "unet", "no $ name": 1, "reprogrammer/depth": 3}
    outbox.add(records.open_trial(outbox.study_key, 0, name="unet-000", params=params))
    outbox.add(records.finish_trial(outbox.study_key, 0, status="FINISHED", metrics={"macro_f1": 0.7}))
    closing = outbox.close(timeout_s=30)
    assert (closing.left, closing.rejected) == (0, 1)
    assert "refused 1 records" in closing.message
    (trial,) = runs(uri)
    assert trial.data.params == {names.REPROGRAMMER: "unet", "reprogrammer/depth": "3"}
    assert trial.info.status == "FINISHED"
    (entry,) = map(json.loads, (tmp_path / "study" / "outbox.rejected.jsonl").read_text().splitlines())
    assert "no $ name" in entry["reason"]


def test_a_file_that_is_gone_does_not_hold_up_what_follows(open_outbox, uri, tmp_path):
    outbox = open_outbox()
    add_study(outbox, trials=1, artifacts={"checkpoint": [tmp_path / "best.pt"]})
    assert outbox.close(timeout_s=30).rejected == 1
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


def test_what_fails_for_ever_while_other_writes_succeed_is_set_aside(open_outbox, uri, tmp_path, monkeypatch):
    monkeypatch.setattr("tracking.outbox._FIRST_WAIT_S", 0.05)
    figure = tmp_path / "f1.png"
    figure.write_bytes(b"picture")
    (tmp_path / "artifacts").write_text("a file where artifacts should go")
    outbox = open_outbox()
    add_study(outbox, trials=1, artifacts={"figures": [figure]})
    wait_until(lambda: not outbox.left())
    assert outbox.close(timeout_s=30).rejected == 1
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


def test_a_torn_last_line_is_cut_off_and_said_again(open_outbox, uri, tmp_path):
    first = open_outbox()
    add_study(first)
    first.close(timeout_s=30)
    path = tmp_path / "study" / "outbox.jsonl"
    path.write_bytes(path.read_bytes() + b'{"op":"metrics","key":"' + first.study_key.encode())
    again = open_outbox()
    again.add(records.log_epoch(again.study_key, 1, epoch=4, val={"loss": 0.25}))
    closing = again.close(timeout_s=30)
    assert (closing.left, closing.rejected) == (0, 0)
    assert history(uri, runs(uri)[1], "val/loss")[-1] == (4, 0.25)


def test_a_spoilt_line_in_the_middle_is_set_aside(open_outbox, uri, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "outbox.jsonl").write_text("spoilt\n")
    outbox = open_outbox()
    add_study(outbox, trials=1)
    assert outbox.close(timeout_s=30).rejected == 1
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


def test_a_store_that_was_thrown_away_gets_everything_again(open_outbox, tmp_path, tmp_path_factory):
    first = open_outbox()
    add_study(first)
    first.close(timeout_s=30)
    other = new_store(tmp_path / "new", tmp_path_factory)
    delivered = tmp_path / "study" / "outbox.delivered.json"
    delivered.write_text(
        delivered.read_text().replace(str(tmp_path / "mlflow.db"), str(tmp_path / "new" / "mlflow.db"))
    )
    again = open_outbox(at=other)
    again.add(records.log_epoch(again.study_key, 1, epoch=4, val={"loss": 0.25}))
    again.close(timeout_s=30)
    assert len(history(other, runs(other)[1], "val/loss")) == 4


def test_a_store_that_is_emptied_under_a_study_gets_everything_again(open_outbox, uri, tmp_path):
    outbox = open_outbox()
    add_study(outbox)
    wait_until(lambda: not outbox.left())
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs", "experiment_tags"):
            database.execute(f"DELETE FROM {table}")
        database.execute("DELETE FROM experiments WHERE experiment_id > 0")
        database.commit()
    outbox.add(records.log_epoch(outbox.study_key, 1, epoch=4, val={"loss": 0.25}))
    assert outbox.close(timeout_s=30).rejected == 0
    assert [len(history(uri, run, "val/loss")) for run in runs(uri)] == [3, 4]


def test_a_deleted_experiment_is_not_filled_again_and_nothing_is_lost(open_outbox, uri):
    client = mlflow_client(uri)
    experiment_id = client.create_experiment(EXPERIMENT)
    client.delete_experiment(experiment_id)
    outbox = open_outbox()
    add_study(outbox, trials=1)
    closing = outbox.close(timeout_s=20)
    assert closing.rejected == 0
    assert closing.left > 0
    client.restore_experiment(experiment_id)
    assert open_outbox().close(timeout_s=30).left == 0


def test_a_full_disk_costs_records_not_the_study(open_outbox, tmp_path, monkeypatch, caplog):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    real_open = type(tmp_path).open

    def full(self, mode="r", *args, **kwargs):
        if self.name == "outbox.jsonl" and "a" in mode:
            raise OSError(28, "No space left on device")
        return real_open(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", full)
        add_trial(outbox, 0, epochs=1)
    assert "records are lost" in caplog.text
    assert not outbox.has_epoch(0, 1), "so that it can be said again"
    add_trial(outbox, 0, epochs=1)
    closing = outbox.close(timeout_s=30)
    assert closing.left == closing.rejected == 0
    assert "could not be written" in closing.message


def test_threads_may_add_at_once(open_outbox, uri):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    threads = [threading.Thread(target=add_trial, args=(outbox, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outbox.close(timeout_s=30).left == 0
    assert [len(history(uri, run, "val/loss")) for run in runs(uri)] == [3] * 4


def test_the_views_follow_the_trials_of_all_studies(open_outbox, uri):
    for directory in ("one", "two"):
        outbox = open_outbox(directory)
        add_study(outbox)
        outbox.close(timeout_s=30)
    tags = mlflow_client(uri).get_experiment_by_name(EXPERIMENT).tags
    assert {f"mlflow.sharedViewState.harness_{view}" for view in ("ranked", "size", "searched", "grouped")} <= set(tags)
    assert json.loads(tags[names.LABELS]) == LABELS


def test_a_study_has_its_start_to_itself_unless_it_ends_sooner(uri, tmp_path):
    outbox = Outbox(tmp_path / "study", uri, experiment=EXPERIMENT, head_start_s=60)
    add_study(outbox)
    time.sleep(0.5)
    assert outbox.experiment_id is None
    assert outbox.close(timeout_s=30).left == 0


def test_an_impossible_uri_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"tracking URI './mlruns': must be sqlite:///PATH"):
        Outbox(tmp_path, "./mlruns", experiment=EXPERIMENT, head_start_s=0)
