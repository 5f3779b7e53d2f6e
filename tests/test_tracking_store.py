import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracking.store import Address, absolute_uri, default_uri, ensure_experiment, mlflow_client, without_password

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


def _run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_relative_sqlite_uri_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///here/mlflow.db") == f"sqlite:///{tmp_path}/here/mlflow.db"


@pytest.mark.parametrize(
    "uri", ["http://head:5000", "https://me:secret@head", "postgresql+psycopg://db/mlflow", "sqlite:////abs/mlflow.db"]
)
def test_an_absolute_uri_stays_as_it_is(uri):
    assert absolute_uri(uri) == uri


@pytest.mark.parametrize(
    "uri", ["", "mlruns", "./mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///", "ftp://host"]
)
def test_a_uri_that_mlflow_would_not_take_is_refused_with_what_it_takes(uri):
    with pytest.raises(ValueError, match=r"must be sqlite:///PATH, http\(s\)://HOST:PORT"):
        absolute_uri(uri)


def test_a_directory_is_refused_with_the_store_that_would_do():
    with pytest.raises(ValueError, match=r"did you mean sqlite:////data/mlruns/mlflow\.db"):
        absolute_uri("file:///data/mlruns")


def test_a_password_is_not_written_down():
    assert without_password("https://me:secret@head:5000/x") == "https://head:5000/x"
    assert without_password("sqlite:////home/me@work/mlflow.db") == "sqlite:////home/me@work/mlflow.db"


def test_a_new_store_is_made_quietly_and_without_touching_handlers(tmp_path, capfd):
    root_handlers = list(logging.getLogger().handlers)
    address = Address(default_uri(tmp_path / "new"), "reprogramming demo ast-nano")
    client = mlflow_client(address.uri)
    first = ensure_experiment(client, address)
    assert ensure_experiment(client, address) == first
    assert logging.getLogger().handlers == root_handlers
    assert "".join(capfd.readouterr()) == ""
    location = client.get_experiment(first).artifact_location
    assert location == (tmp_path / "new" / "artifacts" / "reprogramming-demo-ast-nano").as_uri()


@pytest.mark.drill
def test_processes_that_make_one_store_at_once_all_succeed_even_over_a_half_made_one(tmp_path):
    (tmp_path / "mlflow.db.new").write_bytes(b"half a store")
    (tmp_path / "mlflow.db").touch()
    script = f"from tracking.store import mlflow_client; mlflow_client({default_uri(tmp_path)!r}).search_experiments()"
    processes = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert not (tmp_path / "mlflow.db.new").exists()


def test_a_users_settings_stay_and_the_others_do_not_block():
    script = (
        "import os; from tracking.store import mlflow_client; mlflow_client('http://127.0.0.1:9')\n"
        "from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT\n"
        "print(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), MLFLOW_HTTP_REQUEST_TIMEOUT.get())"
    )
    assert _run(script, MLFLOW_HTTP_REQUEST_TIMEOUT="77").stdout.split() == ["0", "77"]


def test_a_study_that_imports_tracking_pays_for_neither_mlflow_nor_torch_nor_ray():
    modules = [path.stem for path in Path("tracking").glob("*.py") if path.stem != "__init__"]
    imports = "; ".join(f"import tracking.{module}" for module in modules)
    loaded = _run(f"import sys; {imports}; print(*sys.modules)").stdout.split()
    assert not {"mlflow", "torch", "ray", "harness"} & set(loaded)
