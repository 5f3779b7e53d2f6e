"""The outbox against a real MLflow with an SQLite store."""

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.support.mlflow import (
    EXPERIMENT,
    LABELS,
    add_study,
    add_trial,
    experiment,
    history,
    new_store,
    runs,
    track_study,
    wait_until,
)
from tracking import names, records
from tracking.mlflow_store import Address, mlflow_client
from tracking.outbox import Outbox, Spool
from tracking.uris import default_uri


def test_a_study_arrives_whole(original):
    uri = default_uri(original)
    (study,), trials = runs(uri, "study"), runs(uri)
    assert [trial.info.run_name for trial in trials] == ["unet-000", "unet-001"]
    assert {trial.data.tags["mlflow.parentRunId"] for trial in trials} == {study.info.run_id}
    assert {run.info.status for run in (study, *trials)} == {"FINISHED"}
    times = {(record.key, record.op): record.time_ms for record, _ in Spool(original / "study").read()}
    for trial in trials:
        key = trial.data.tags[names.HARNESS_KEY]
        assert (trial.info.start_time, trial.info.end_time) == (times[key, "run"], times[key, "end"])
    assert trials[0].data.params == {names.REPROGRAMMER: "unet", "optimiser/lr": "1.0", "optimiser/log10_lr": "0.0000"}
    assert history(uri, trials[0], "val_f1/banjo") == [(1, 0.7), (2, 0.7), (3, 0.7)]
    assert history(uri, trials[0], "macro_f1") == [(0, 0.7)]
    files = mlflow_client(uri).list_artifacts(trials[0].info.run_id, "figures")
    assert [file.path for file in files] == ["figures/f1.png"]
    assert (original / "artifacts").is_dir()


def test_every_odd_label_has_its_f1_and_its_column(open_outbox, uri):
    odd = {"R&B": 0.1, "Violin, fiddle": 0.2, "(other)": 0.3, "plain": 0.4, "..": 0.5, "a//b": 0.6}
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="n", labels=list(odd), metrics=["macro_f1", "toy"]))
    outbox.add(records.open_trial(outbox.study_key, 0, name="n", params={}))
    outbox.add(records.finish_trial(outbox.study_key, 0, status="FINISHED", metrics={"toy": 0.9}, f1=odd))
    assert outbox.close(timeout_s=30) == ""
    (trial,) = runs(uri)
    assert {n: v for n, v in trial.data.metrics.items() if n.startswith("f1/")} == {
        names.labelled("f1", k): v for k, v in odd.items()
    }
    assert trial.data.metrics["f1/plain"] == 0.4
    assert json.loads(experiment(uri).tags[names.METRIC_NAMES]) == [*names.METRICS, "toy"]


def test_adding_takes_no_time_even_while_mlflow_is_busy(open_outbox, uri):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    outbox.add(records.open_trial(outbox.study_key, 0, name="unet-000", params={}))
    slowest = 0.0
    for epoch in range(50):
        start = time.perf_counter()
        outbox.add(records.log_epoch(outbox.study_key, 0, epoch=epoch, val={"loss": 1.0}))
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.5, "0.3 ms on average; the rest is this machine's other work"


def test_a_study_repeated_after_a_restart_changes_nothing(open_outbox, finished):
    again = open_outbox()
    assert f"{again.study_key}/0000" == runs(finished)[0].data.tags[names.HARNESS_KEY]
    assert (again.has_epoch(1, 3), again.has_epoch(1, 4), again.has_ended(1)) == (True, False, True)
    for number in range(2):
        again.add(records.log_epoch(again.study_key, number, epoch=2, val={"macro_f1": 0.99}, val_f1={"banjo": 0.99}))
    assert again.close(timeout_s=30) == ""
    assert len(runs(finished)) == 2
    assert history(finished, runs(finished)[0], "val_f1/banjo") == [(1, 0.7), (2, 0.7), (3, 0.7)]


def test_everything_delivered_twice_leaves_no_trace(open_outbox, finished, tmp_path):
    (tmp_path / "study" / "outbox.json").unlink()
    assert open_outbox().close(timeout_s=30) == ""
    trials = runs(finished)
    assert (len(trials), len(runs(finished, "study"))) == (2, 1)
    assert {run.info.status for run in trials} == {"FINISHED"}
    assert history(finished, trials[1], "val/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert history(finished, trials[1], "macro_f1") == [(0, 0.7)]
    assert len(mlflow_client(finished).list_artifacts(trials[0].info.run_id, "figures")) == 1


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


def test_two_studies_of_one_name_stay_apart_and_share_the_views(finished, tmp_path):
    track_study(tmp_path / "there" / "study", finished, trials=1)
    assert (len(runs(finished, "study")), len(runs(finished))) == (2, 3)
    tags = experiment(finished).tags
    assert {f"mlflow.sharedViewState.harness_{view}" for view in ("ranked", "size", "searched", "grouped")} <= set(tags)
    assert json.loads(tags[names.LABELS]) == LABELS


def test_a_refused_record_is_reported_and_the_rest_arrives(open_outbox, uri, tmp_path, caplog):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "outbox.jsonl").write_text("damaged\n")
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    params = {names.REPROGRAMMER: "unet", "no $ name": 1, "reprogrammer/depth": 3}
    outbox.add(records.open_trial(outbox.study_key, 0, name="unet-000", params=params))
    gone = {"checkpoint": [tmp_path / "best.pt"]}
    outbox.add(records.finish_trial(outbox.study_key, 0, status="FINISHED", metrics={"macro_f1": 0.7}, artifacts=gone))
    assert outbox.close(timeout_s=30).startswith("3 records were refused")
    (trial,) = runs(uri)
    assert trial.data.params == {names.REPROGRAMMER: "unet", "reprogrammer/depth": "3"}
    assert trial.info.status == "FINISHED"
    assert all(reason in caplog.text for reason in ("no $ name", "a damaged line", "best.pt no longer exists"))


def test_an_upload_that_always_fails_is_skipped_while_the_store_is_up(open_outbox, uri, tmp_path, monkeypatch):
    monkeypatch.setattr("tracking.outbox._FIRST_WAIT_S", 0.01)
    figure = tmp_path / "f1.png"
    figure.write_bytes(b"picture")
    (tmp_path / "artifacts").write_text("a file in place of the directory")
    outbox = open_outbox()
    add_study(outbox, trials=1, artifacts={"figures": [figure]})
    wait_until(lambda: not outbox.left())
    assert outbox.close(timeout_s=30).startswith("1 records were refused")
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


def test_a_torn_last_line_is_cut_off_and_written_again(open_outbox, finished, tmp_path):
    path = tmp_path / "study" / "outbox.jsonl"
    path.write_bytes(path.read_bytes() + b'{"op":"metrics","key":"')
    again = open_outbox()
    again.add(records.log_epoch(again.study_key, 1, epoch=4, val={"loss": 0.25}))
    assert again.close(timeout_s=30) == ""
    assert history(finished, runs(finished)[1], "val/loss")[-1] == (4, 0.25)


@pytest.mark.parametrize("how", ["replaced", "emptied"])
def test_a_store_that_lost_the_study_gets_everything_again(how, open_outbox, finished, tmp_path, tmp_path_factory):
    if how == "replaced":
        new_store(tmp_path, tmp_path_factory)
    outbox = open_outbox()
    if how == "emptied":  # while it is open
        outbox.add(records.log_epoch(outbox.study_key, 1, epoch=5, val={"acc": 0.5}))
        wait_until(lambda: not outbox.left())
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            for table in ("metrics", "latest_metrics", "params", "tags", "runs", "experiment_tags"):
                database.execute(f"DELETE FROM {table}")
            database.execute("DELETE FROM experiments WHERE experiment_id > 0")
            database.commit()
    outbox.add(records.log_epoch(outbox.study_key, 1, epoch=4, val={"loss": 0.25}))
    assert outbox.close(timeout_s=30) == ""
    assert [len(history(finished, run, "val/loss")) for run in runs(finished)] == [3, 4]


def test_a_deleted_experiment_is_not_filled_again_and_nothing_is_lost(open_outbox, uri):
    client = mlflow_client(uri)
    experiment_id = client.create_experiment(EXPERIMENT)
    client.delete_experiment(experiment_id)
    outbox = open_outbox()
    add_study(outbox, trials=1)
    message = outbox.close(timeout_s=20)
    assert "have not reached MLflow" in message
    assert "refused" not in message
    client.restore_experiment(experiment_id)
    assert open_outbox().close(timeout_s=30) == ""


def test_a_full_disk_costs_records_not_the_study(open_outbox, uri, monkeypatch, caplog):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    real_open = Path.open

    def full(self, mode="r", *args, **kwargs):
        if self.name == "outbox.jsonl" and "a" in mode:
            raise OSError(28, "No space left on device")
        return real_open(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        add_trial(outbox, 0, epochs=1)
    assert "records are lost" in caplog.text
    assert not outbox.has_epoch(0, 1), "it can be added again"
    add_trial(outbox, 0, epochs=1)
    assert "could not be written" in outbox.close(timeout_s=30)
    assert outbox.left() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_an_error_not_half_a_line(tmp_path):
    (tmp_path / "outbox.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        Spool(tmp_path).append(records.finish_study("s", status="FINISHED"))


def test_threads_may_add_at_once(open_outbox, uri):
    outbox = open_outbox()
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    threads = [threading.Thread(target=add_trial, args=(outbox, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outbox.close(timeout_s=30) == ""
    assert [len(history(uri, run, "val/loss")) for run in runs(uri)] == [3] * 4


def test_a_study_has_its_start_to_itself_unless_it_ends_sooner(uri, tmp_path):
    outbox = Outbox(tmp_path / "study", uri, experiment=EXPERIMENT, head_start_s=60)
    add_study(outbox)
    time.sleep(0.2)
    assert outbox.experiment_id is None
    assert outbox.close(timeout_s=30) == ""


class TestSpool:
    @pytest.fixture
    def spool(self, tmp_path, uri):
        spool = Spool(tmp_path / "study")
        spool.study_dir.mkdir()
        spool.write_state(Address(uri, EXPERIMENT), 0)
        return spool

    def test_records_come_back_in_order_with_the_offset_after_each(self, spool):
        written = records.finish_study("s", status="FINISHED")
        assert list(spool.read()) == []
        spool.append(written[:1])
        spool.append(written[1:])
        first, second = spool.read()
        assert [first[0], second[0]] == written
        assert list(spool.read(first[1])) == [second]
        assert second[1] == spool.path.stat().st_size

    def test_only_complete_lines_are_there_and_repair_keeps_exactly_these(self, spool):
        spool.append(records.finish_study("s", status="FINISHED"))
        whole, lines = spool.path.read_bytes(), list(spool.read())
        spool.path.write_bytes(whole + b'{"torn')
        assert list(spool.read()) == lines
        for _ in range(2):
            spool.repair()
            assert spool.path.read_bytes() == whole

    def test_an_outbox_shorter_than_its_offset_is_delivered_from_the_start(self, spool, uri):
        spool.append(records.finish_study("s", status="FINISHED"))
        spool.write_state(Address(uri, EXPERIMENT), 10_000)
        assert spool.read_state() == (Address(uri, EXPERIMENT), 0)

    def test_only_one_holds_the_lock(self, spool):
        from filelock import Timeout

        with spool.lock, pytest.raises(Timeout), Spool(spool.study_dir).lock:
            pass
        with Spool(spool.study_dir).lock:
            pass

    def test_store_and_files_move_with_the_study(self, spool, uri, tmp_path):
        figure = spool.study_dir / "figures" / "f1.png"
        elsewhere = tmp_path / "report.md"
        spool.append(records.finish_study("s", status="FINISHED", artifacts={"report": [figure, elsewhere]}))
        for file in spool.study_dir.iterdir():
            assert str(spool.study_dir) not in file.read_text()
        new = shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
        moved = Spool(Path(new) / "study")
        assert moved.read_state()[0].uri == uri.replace(str(tmp_path), str(new))
        paths = [record.body["path"] for record, _ in moved.read() if record.op == "artifact"]
        assert paths == [str(moved.study_dir / "figures" / "f1.png"), str(elsewhere)]
        shutil.move(new, tmp_path)
