import shutil

import pytest

from tests.support import mlflow
from tracking.uris import default_uri


def pytest_collection_modifyitems(items):
    for item in items:  # MLflow 3.17 still uses what SQLAlchemy 2.1 deprecates
        if "tests/tracking" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"))


@pytest.fixture
def uri(tmp_path, tmp_path_factory):
    """Return the URI of an empty store beside a test's studies."""
    return mlflow.new_store(tmp_path, tmp_path_factory)


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """Return a directory with a delivered study of two trials and its store, which no test changes."""
    home = tmp_path_factory.mktemp("original")
    figure = home / "study" / "f1.png"
    figure.parent.mkdir()
    figure.write_bytes(b"picture")
    uri = mlflow.new_store(home, tmp_path_factory)
    mlflow.track_study(home / "study", uri, artifacts={"figures": [figure]})
    return home


@pytest.fixture
def finished(original, tmp_path):
    """Return the URI of a store with a finished study, which is `study` in the test's directory."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return default_uri(tmp_path)


@pytest.fixture
def open_outbox(tmp_path):
    """Open the outbox of `study` as a driver does; close every outbox that a test leaves open."""
    opened = []

    def open_one():
        opened.append(mlflow.open_outbox(tmp_path / "study", default_uri(tmp_path)))
        return opened[-1]

    yield open_one
    for outbox in opened:
        outbox.close(timeout_s=20)
