"""Tracking URIs: an SQLite file of any path, a server, or a database server; never a password."""

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "postgresql", "mysql", "mssql", "databricks")


def sqlite_uri(database: Path) -> str:
    """Return the URI of an SQLite file, whatever its path contains."""
    return _SQLITE + escaped(str(database.expanduser().absolute()))


def escaped(path: str) -> str:
    """Escape a path for an SQLite URI.

    SQLAlchemy cuts a URI at `?` and decodes `%XX`; Optuna formats its own, hence the braces. `sqlalchemy.URL.create`
    also escapes accents. MLflow makes the directory that an URI spells, which fails beside a home directory `/home/é`.
    """
    return "".join(f"%{ord(char):02X}" if char in "%?{}" else char for char in path)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an SQLite URI, None for any other store."""
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def default_uri(directory: Path) -> str:
    """Return the URI of the SQLite store in a directory."""
    return sqlite_uri(directory / "mlflow.db")


def checked_uri(uri: str) -> str:
    """Return a tracking URI that has the same meaning in every directory and process.

    Raises:
        ValueError: MLflow does not take it (a directory, a database in memory, an unknown scheme), or it holds a
            password, which the study would write to disk.
    """
    scheme, colon, _ = uri.partition(":")
    if (database := sqlite_path(uri)) and database != Path():
        if "?" in uri:
            raise ValueError(f"tracking-uri={uri!r}: write %3F for a question mark in a path")
        return sqlite_uri(database)
    if not colon or scheme.partition("+")[0] not in _SCHEMES:
        suggestion = default_uri(Path(uri.removeprefix("file://").removeprefix("file:"))) if uri else "sqlite:///PATH"
        raise ValueError(
            f"tracking-uri={uri!r}: must be sqlite:///PATH, http(s)://HOST:PORT or the URI of a database server. "
            f"MLflow no longer keeps runs in directories; did you mean {suggestion}?"
        )
    parts = urlsplit(uri)
    if parts.password is not None or "password" in parse_qs(parts.query):
        of_server = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        place = of_server if scheme.startswith("http") else "PGPASSWORD or ~/.pgpass (your database's equivalent)"
        raise ValueError(f"tracking-uri: leave the password out of {scheme}://{parts.hostname}; give it in {place}")
    return uri


def chosen_uri(flag: str | None, *, is_new: bool) -> str | None:
    """Return the store that `--tracking-uri` names, else MLFLOW_TRACKING_URI if the study is new; None for neither.

    A study that has begun keeps its own store, whatever the environment says.

    Raises:
        ValueError: MLflow does not take the URI, or it holds a password.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") if flag is None and is_new else flag
    return uri and checked_uri(uri)


def relative_uri(uri: str, study_dir: Path) -> str:
    """Return the URI as a study stores it: relative if the database lies beside the study, since both move together."""
    database, beside = sqlite_path(uri), study_dir.absolute().parent
    if database is None or not database.is_relative_to(beside):
        return uri
    return _SQLITE + str(Path("..") / database.relative_to(beside))


def resolved_uri(stored: str, study_dir: Path) -> str:
    """Return the absolute URI of one that `relative_uri` made for a study that now lies in `study_dir`."""
    if not stored.startswith(f"{_SQLITE}../"):
        return stored
    return sqlite_uri(study_dir.absolute().parent / stored.removeprefix(f"{_SQLITE}../"))
