"""The Optuna storage of a study: SQLite, or a journal file where SQLite's locks cannot be trusted."""

from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from tracking.uris import sqlite_uri

JOURNAL = "optuna.journal"


def open_storage(home: Path) -> BaseStorage:
    """Return the storage in a study's directory: its journal if there is an `optuna.journal`, else SQLite.

    An empty journal file, made before the study begins, asks for a journal, as on a network file system.
    """
    journal = home / JOURNAL
    if journal.exists():
        return JournalStorage(JournalFileBackend(str(journal)))
    return RDBStorage(sqlite_uri(home / "optuna.db"), engine_kwargs={"connect_args": {"timeout": 60}})
