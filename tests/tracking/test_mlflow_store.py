"""URIs and paths, against a real MLflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tracking
from tests.support.mlflow import add_study, experiment, history, new_store, open_outbox, runs, track_study
from tracking.mlflow_store import Address, ensure_experiment, mlflow_client
from tracking.uris import default_uri

ODD_NAMES = ["My Studies run?2", "My%20Studies a#1", "R&B Küche {x} 50%"]


def _run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_store_works_in_a_directory_of_any_name(name, tmp_path, tmp_path_factory):
    uri = new_store(tmp_path / name / "studies", tmp_path_factory)
    study = tmp_path / name / "studies" / "unet-1"
    figure = study / "f1.png"
    study.mkdir()
    figure.write_bytes(b"picture")
    track_study(study, uri, trials=1, artifacts={"figures": [figure]})
    (trial,) = runs(uri)
    assert history(uri, trial, "macro_f1") == [(0, 0.7)]
    assert len(mlflow_client(uri).list_artifacts(trial.info.run_id, "figures")) == 1
    found = {path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).glob("*/*")}
    assert {"studies/mlflow.db", "studies/artifacts", "studies/unet-1"} <= found
    assert os.listdir(tmp_path) == [name], "nothing lies beside it"  # noqa: PTH208


def test_artifacts_are_found_after_a_move_and_new_ones_go_to_the_new_place(finished, tmp_path):
    outbox = open_outbox(tmp_path / "study", finished)
    add_study(outbox, trials=3, artifacts={"figures": [tmp_path / "study" / "f1.png"]})
    assert outbox.close(timeout_s=30) == ""
    places = [Path(run.info.artifact_uri.removeprefix("file://")) for run in runs(finished)]
    assert len(places) == 3
    assert all(place.is_relative_to(tmp_path) and (place / "figures" / "f1.png").exists() for place in places)


def test_a_database_of_before_opens_and_its_runs_are_found(uri, tmp_path):
    """A run as earlier versions made it: `harness_key` and raw metric names, no list of metrics."""
    client = mlflow_client(uri)
    address = Address(uri, "reprogramming demo ast-nano")
    experiment_id = ensure_experiment(client, address)
    client.set_experiment_tag(experiment_id, "labels", '["banjo"]')
    outbox = open_outbox(tmp_path / "study", uri)
    tags = {"harness_key": f"{outbox.study_key}/0000", "kind": "trial", "mlflow.runName": "unet-000"}
    old = client.create_run(experiment_id, tags=tags)
    client.log_metric(old.info.run_id, "f1/banjo", 0.5, step=0)
    add_study(outbox, trials=1, f1=0.7)
    assert outbox.close(timeout_s=30) == ""
    assert [run.info.run_id for run in runs(uri)] == [old.info.run_id]
    assert experiment(uri).tags["labels"] == '["banjo", "accordion"]'


@pytest.mark.drill
def test_processes_that_make_one_store_at_once_all_succeed_even_over_a_half_made_one(tmp_path):
    (tmp_path / "mlflow.db.new").write_bytes(b"half a store")
    (tmp_path / "mlflow.db").touch()
    script = (
        f"from tracking import mlflow_store; mlflow_store.mlflow_client({default_uri(tmp_path)!r}).get_experiment('0')"
    )
    processes = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert not (tmp_path / "mlflow.db.new").exists()


@pytest.mark.drill
def test_a_users_settings_stay_and_the_others_do_not_block():
    script = (
        "import os; from tracking.mlflow_store import mlflow_client; mlflow_client('http://127.0.0.1:9')\n"
        "from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT\n"
        "print(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), MLFLOW_HTTP_REQUEST_TIMEOUT.get())"
    )
    assert _run(script, MLFLOW_HTTP_REQUEST_TIMEOUT="77").stdout.split() == ["0", "77"]


def test_tracking_imports_neither_mlflow_nor_torch_nor_ray_nor_pyplot():
    modules = [path.stem for path in Path(tracking.__file__).parent.glob("*.py") if path.stem != "__init__"]
    imports = "; ".join(f"import tracking.{module}" for module in modules)
    loaded = _run(f"import sys; {imports}; print(*sys.modules)").stdout.split()
    assert not {"mlflow", "torch", "ray", "harness", "sqlalchemy", "matplotlib.pyplot"} & set(loaded)
