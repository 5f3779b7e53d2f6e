import pytest

from tests.support import mlflow


def pytest_collection_modifyitems(items):
    for item in items:  # MLflow 3.17 still uses what SQLAlchemy 2.1 deprecates
        if "tests/tracking" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"))


@pytest.fixture
def uri(tmp_path, tmp_path_factory):
    """Return the URI of an empty store beside a test's studies."""
    return mlflow.new_store(tmp_path, tmp_path_factory)


@pytest.fixture
def open_outbox(uri, tmp_path):
    """Open a study's outbox as a driver does; close every outbox that a test leaves open."""
    opened = []

    def open_one(study="study", *, at=uri):
        opened.append(mlflow.open_outbox(tmp_path / study, at))
        return opened[-1]

    yield open_one
    for outbox in opened:
        outbox.close(timeout_s=20)
