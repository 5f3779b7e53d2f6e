import re
from pathlib import Path

import pytest

from tracking.uris import checked_uri, relative_uri, resolved_uri, sqlite_path, sqlite_uri

ODD_NAMES = ["My Studies", "run?2", "a#1", "My%20Studies", "R&B", "Küche", "{x} 50%"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_sqlalchemy_and_optuna_open_the_file_that_a_uri_was_made_for(name, tmp_path):
    import sqlalchemy
    from optuna.storages import RDBStorage

    database = tmp_path / name / "optuna.db"
    assert sqlalchemy.make_url(sqlite_uri(database)).database == str(database)
    assert sqlite_path(sqlite_uri(database)) == database
    assert checked_uri(sqlite_uri(database)) == sqlite_uri(database)
    template = RDBStorage._fill_storage_url_template(sqlite_uri(database))  # Optuna formats every URI
    assert sqlalchemy.make_url(template).database == str(database)


def test_a_relative_sqlite_uri_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checked_uri("sqlite:///here/mlflow.db") == f"sqlite:///{tmp_path}/here/mlflow.db"


@pytest.mark.parametrize(
    "uri",
    [
        "http://head:5000", "https://me@head", "postgresql://me@host/db", "postgresql+psycopg://db/mlflow",
        "sqlite:////abs/mlflow.db",
    ],
)  # fmt: skip
def test_an_absolute_uri_stays_as_it_is(uri):
    assert checked_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "keyword"),
    [
        *(
            (uri, "must be sqlite:///PATH")
            for uri in ("", "mlruns", "./mlruns", "sqlite://", "sqlite:///", "ftp://host")
        ),
        ("file:///data/mlruns", "did you mean sqlite:////data/mlruns/mlflow.db"),
        ("sqlite:///a?b.db", "write %3F"),
    ],
)
def test_a_uri_that_mlflow_would_not_take_is_refused(uri, keyword):
    with pytest.raises(ValueError, match=rf"tracking-uri=.*{re.escape(keyword)}"):
        checked_uri(uri)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("https://me:secret@head:5000/x", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://me:secret@host/db", r"PGPASSWORD or ~/\.pgpass"),
        ("postgresql+psycopg://host/db?user=me&password=secret", "PGPASSWORD"),
    ],
)
def test_a_password_is_refused_with_its_proper_place(uri, place):
    with pytest.raises(ValueError, match=rf"password.*{place}") as refusal:
        checked_uri(uri)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("database", ["studies/mlflow.db", "studies/other/a?b.db"])
def test_a_store_beside_a_study_is_stored_relative_to_it(database, tmp_path):
    stored = relative_uri(sqlite_uri(tmp_path / database), tmp_path / "studies" / "unet-1")
    assert str(tmp_path) not in stored
    assert resolved_uri(stored, Path("/new/studies/unet-1")) == sqlite_uri(Path("/new") / database)


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "http://head:5000"])
def test_a_store_elsewhere_is_stored_as_it_is(uri, tmp_path):
    stored = relative_uri(uri, tmp_path / "unet-1")
    assert stored == resolved_uri(stored, tmp_path / "unet-1") == uri
