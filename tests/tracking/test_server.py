"""Drills: a real MLflow server that is late, killed and back, drivers that die, and the UI in a browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.support.mlflow import (
    LABELS,
    add_study,
    add_trial,
    free_port,
    history,
    new_store,
    open_outbox,
    runs,
    wait_until,
)
from tracking import names, records, ui
from tracking.mlflow_store import mlflow_client
from tracking.outbox import Spool

pytestmark = pytest.mark.drill

DRIVER = """
import sys, time
from tests.support.mlflow import add_trial, open_outbox
from tracking import records
outbox = open_outbox(sys.argv[1], sys.argv[2])
outbox.add(records.open_study(outbox.study_key, name="unet-1"))
for number in range(40):
    if not outbox.has_ended(number):
        add_trial(outbox, number)
        time.sleep(0.03)
    print(number, flush=True)
outbox.add(records.finish_study(outbox.study_key, status="FINISHED"))
sys.exit(outbox.close(timeout_s=300) or 0)
"""


class Server:
    """A real MLflow server that can be started, killed and started again."""

    def __init__(self, directory, port):
        self.directory, self.port = directory, port
        self.uri = f"http://127.0.0.1:{port}"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            ui.server_command(f"sqlite:///{self.directory}/mlflow.db", port=self.port),
            cwd=self.directory, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
        wait_until(self.is_up, seconds=300)

    def is_up(self):
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path, tmp_path_factory):
    new_store(tmp_path / "server", tmp_path_factory)
    server = Server(tmp_path / "server", free_port())
    yield server
    server.kill()


def test_a_server_that_is_late_then_killed_then_back_gets_everything_once(server, tmp_path, caplog, capfd, monkeypatch):
    monkeypatch.setattr("tracking.outbox._LONGEST_WAIT_S", 1.0)
    outbox = open_outbox(tmp_path / "study", server.uri)
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    add_trial(outbox, 0)
    server.start()
    wait_until(lambda: outbox.experiment_id is not None, seconds=300)
    figure = tmp_path / "f1.png"
    figure.write_bytes(b"picture")
    add_trial(outbox, 1, artifacts={"figures": [figure]})
    server.kill()
    start = time.monotonic()
    for number in range(2, 8):
        add_trial(outbox, number)
    assert time.monotonic() - start < 1
    server.start()
    outbox.add(records.finish_study(outbox.study_key, status="FINISHED"))
    with caplog.at_level("INFO", logger="tracking"):
        wait_until(lambda: "MLflow has everything again" in caplog.text, seconds=300)
    assert outbox.close(timeout_s=300) == ""
    assert "".join(capfd.readouterr()) == "", "the terminal is the study's"
    found = runs(server.uri)
    assert [run.info.run_name for run in found] == [f"unet-{number:03d}" for number in range(8)]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert all([step for step, _ in history(server.uri, run, "val/loss")] == [1, 2, 3] for run in found)
    assert [f.path for f in mlflow_client(server.uri).list_artifacts(found[1].info.run_id, "figures")] == [
        "figures/f1.png"
    ]
    (link,) = ui.ui_lines(tmp_path / "study", server.uri, found[0].info.experiment_id)
    with urllib.request.urlopen(link.partition("#")[0], timeout=60) as page:
        assert b"<title>MLflow" in page.read()


def test_a_driver_killed_again_and_again_leaves_every_trial_once(tmp_path, tmp_path_factory):
    uri = new_store(tmp_path, tmp_path_factory)
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, str(tmp_path / "study"), uri]
    delivered = 0
    for trials_until_killed in (1, 12, 25):
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while int(driver.stdout.readline()) < trials_until_killed:
            pass
        before = delivered
        while (delivered := Spool(tmp_path / "study").read_state()[1]) <= before:
            time.sleep(0.05)
        driver.kill()
        driver.communicate()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    found = runs(uri)
    assert [run.info.run_name for run in found] == [f"unet-{number:03d}" for number in range(40)]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert all([step for step, _ in history(uri, run, "val/loss")] == [1, 2, 3] for run in found)
    assert len(runs(uri, "study")) == 1


def test_two_processes_that_deliver_at_once_deliver_once(tmp_path, tmp_path_factory):
    uri = new_store(tmp_path, tmp_path_factory)
    outbox = open_outbox(tmp_path / "study", uri)
    add_study(outbox, trials=20)
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tracking.sync", str(tmp_path / "study")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert outbox.close(timeout_s=300) == ""
    found = runs(uri)
    assert len(found) == 20
    assert all([step for step, _ in history(uri, run, "macro_f1")] == [0] for run in found)
    assert len(runs(uri, "study")) == 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_link_opens_the_ranked_trials_with_system_size_and_f1(server, tmp_path):
    server.start()
    outbox = open_outbox(tmp_path / "study", server.uri)
    outbox.add(records.open_study(outbox.study_key, name="unet-1", labels=LABELS))
    add_trial(outbox, 0, f1=0.4321, params_by_part={"reprogrammer": 1285, "mapper": 16916})
    add_trial(outbox, 1, f1=0.8765, params_by_part={"reprogrammer": 20, "mapper": 16916})
    assert outbox.close(timeout_s=300) == ""
    (link,) = ui.ui_lines(tmp_path / "study", server.uri, outbox.experiment_id)
    chromium = ["chromium", "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"]
    load = ["--virtual-time-budget=120000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", link]
    page = subprocess.run([*chromium, *load], capture_output=True, text=True, check=True, timeout=500).stdout
    words = re.sub(r"<[^>]*>", " ", page.partition("<body")[2]).split()
    assert {"0.8765", "0.4321", "16936", "18201"} <= set(words)
    assert words.index("unet-001") < words.index("unet-000"), "the best is first"
    assert {"macro_f1", names.SYSTEM, "params"} <= set(words)
