"""The outbox against a real MLflow server that is late, killed and back, and drivers that die."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from typer.testing import CliRunner

from tests.test_tracking_outbox import EXPERIMENT, LABELS, add_study, add_trial, history, new_store, runs, wait_until
from tracking import names, records, sync, ui, views
from tracking.outbox import Outbox
from tracking.store import default_uri, mlflow_client

pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

DRIVER = """
import sys, time
from pathlib import Path
from tests.test_tracking_outbox import EXPERIMENT, add_trial
from tracking import records
from tracking.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]), sys.argv[2], experiment=EXPERIMENT, head_start_s=0)
outbox.add(records.open_study(outbox.study_key, name="unet-1"))
for number in range(40):
    if not outbox.has_ended(number):
        add_trial(outbox, number)
        time.sleep(0.03)
    print(number, flush=True)
outbox.add(records.finish_study(outbox.study_key, status="FINISHED"))
sys.exit(outbox.close(timeout_s=90).left)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real MLflow server that can be started, killed and started again."""

    def __init__(self, directory, port):
        self.directory, self.port = directory, port
        self.uri = f"http://127.0.0.1:{port}"
        self.process = None

    def start(self):
        command = ui.ui_command(default_uri(self.directory), port=self.port)
        self.process = subprocess.Popen(
            command, shell=True, cwd=self.directory, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("the server did not start in a minute")

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
    outbox = Outbox(tmp_path / "study", server.uri, experiment=EXPERIMENT, head_start_s=0)
    outbox.add(records.open_study(outbox.study_key, name="unet-1"))
    add_trial(outbox, 0)
    server.start()
    wait_until(lambda: outbox.experiment_id is not None)
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
        wait_until(lambda: "MLflow has everything again" in caplog.text)
    assert outbox.close(timeout_s=60).left == 0
    assert "".join(capfd.readouterr()) == "", "the terminal is the study's"
    found = runs(server.uri)
    assert [run.info.run_name for run in found] == [f"unet-{number:03d}" for number in range(8)]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert all([step for step, _ in history(server.uri, run, "val/loss")] == [1, 2, 3] for run in found)
    assert [f.path for f in mlflow_client(server.uri).list_artifacts(found[1].info.run_id, "figures")] == [
        "figures/f1.png"
    ]
    link = urllib.request.urlopen(ui.ui_link(server.uri, found[0].info.experiment_id).partition("#")[0], timeout=10)
    with link:
        assert b"<title>MLflow" in link.read()


def test_a_study_without_any_server_ends_at_once_and_says_how_to_deliver(server, tmp_path):
    outbox = Outbox(tmp_path / "study", server.uri, experiment=EXPERIMENT, head_start_s=0)
    add_study(outbox)
    start = time.monotonic()
    closing = outbox.close(timeout_s=20)
    assert time.monotonic() - start < 15
    assert closing.left > 10
    assert f"python -m tracking.sync {tmp_path / 'study'}" in closing.message
    runner = CliRunner()
    impatient = [str(tmp_path / "study"), "--patience", "1"]
    failed = runner.invoke(sync_app(), impatient)
    assert failed.exit_code == 1
    assert "records are left" in failed.output
    server.start()
    assert runner.invoke(sync_app(), impatient).exit_code == 0
    assert len(runs(server.uri)) == 2


def test_a_driver_killed_again_and_again_leaves_every_trial_once(tmp_path, tmp_path_factory):
    uri = new_store(tmp_path, tmp_path_factory)
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, str(tmp_path / "study"), uri]
    for trials_until_killed in (1, 12, 25):
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while int(driver.stdout.readline()) < trials_until_killed:
            pass
        time.sleep(1.5)
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
    outbox = Outbox(tmp_path / "study", uri, experiment=EXPERIMENT, head_start_s=0)
    add_study(outbox, trials=20)
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tracking.sync", str(tmp_path / "study")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert outbox.close(timeout_s=60).left == 0
    found = runs(uri)
    assert len(found) == 20
    assert all([step for step, _ in history(uri, run, "macro_f1")] == [0] for run in found)
    assert len(runs(uri, "study")) == 1


def test_a_study_can_be_delivered_to_a_second_store_later(tmp_path, tmp_path_factory):
    first, second = (new_store(tmp_path / name, tmp_path_factory) for name in ("first", "second"))
    outbox = Outbox(tmp_path / "study", first, experiment=EXPERIMENT, head_start_s=0)
    add_study(outbox)
    outbox.close(timeout_s=60)
    done = CliRunner().invoke(sync_app(), [str(tmp_path / "study"), "--tracking-uri", second])
    assert done.exit_code == 0, done.output
    assert len(runs(second)) == 2


def test_a_directory_without_an_outbox_is_refused(tmp_path):
    failed = CliRunner().invoke(sync_app(), [str(tmp_path)])
    assert failed.exit_code == 2
    assert "holds no outbox" in failed.output


def sync_app():
    import typer

    app = typer.Typer()
    app.command()(sync.main)
    return app


def test_the_command_and_the_link_belong_together():
    command = ui.ui_command("sqlite:////data/mlflow.db", port=5001)
    assert command.startswith("MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false ")
    assert "--workers 1 --backend-store-uri sqlite:////data/mlflow.db --port 5001" in command
    assert ui.ui_link("sqlite:////data/mlflow.db", "1", port=5001).startswith("http://127.0.0.1:5001/#/experiments/1/")
    assert ui.ui_command("http://head:5000") is None
    assert ui.ui_link("http://me:secret@head:5000", "1", view=views.SIZE).startswith(
        "http://head:5000/#/experiments/1/"
    )


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in programs.values():
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    yield driver
    driver.quit()


def test_the_link_opens_the_ranked_trials_with_reprogrammer_size_and_f1(server, tmp_path, browser):
    server.start()
    outbox = Outbox(tmp_path / "study", server.uri, experiment=EXPERIMENT, head_start_s=0)
    outbox.add(records.open_study(outbox.study_key, name="unet-1", labels=LABELS))
    add_trial(outbox, 0, f1=0.4321, params_by_part={"reprogrammer": 1285, "mapper": 16916})
    add_trial(outbox, 1, f1=0.8765, params_by_part={"reprogrammer": 20, "mapper": 16916})
    assert outbox.close(timeout_s=60).left == 0
    browser.get(ui.ui_link(server.uri, outbox.experiment_id))
    script = "return [...document.querySelectorAll('.ag-row')].map(e => e.innerText).join(' ')"
    wait_until(lambda: "16936" in browser.execute_script(script))
    rows = browser.execute_script(script)
    assert rows.index("unet-001") < rows.index("unet-000"), "the best is first"
    assert {"0.8765", "0.4321", "16936", "18201", "unet"} <= set(rows.split())
    headers = browser.execute_script(
        "const left = e => e.getBoundingClientRect().x;"
        "const cells = [...document.querySelectorAll('.ag-header-cell')].sort((a, b) => left(a) - left(b));"
        "return cells.map(e => e.innerText.trim())"
    )
    assert [name for name in headers if name in ("macro_f1", "params", names.SYSTEM)] == [
        "macro_f1",
        names.SYSTEM,
        "params",
    ]
