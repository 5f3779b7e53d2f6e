"""The Optuna storage of a study: SQLite, or a journal file where SQLite's locks are not to be trusted."""

from pathlib import Path

import psutil
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from tracking.uris import sqlite_uri

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "fuse",
    "efs",
    "ceph",
    "glusterfs",
    "9p",
)


def open_storage(home: Path) -> BaseStorage:
    """Return the storage under a study's home; a file that is there decides its kind, else the file system does."""
    journal = home / "optuna.journal"
    if journal.exists() or (not (home / "optuna.db").exists() and is_network_path(home)):
        return JournalStorage(JournalFileBackend(str(journal)))
    return RDBStorage(sqlite_uri(home / "optuna.db"), engine_kwargs={"connect_args": {"timeout": 60}})


def is_network_path(path: Path) -> bool:
    """Return whether the path lies on a file system that several machines may share."""
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    deepest = max(mounts, key=lambda p: len(p.mountpoint), default=None)
    return deepest is not None and deepest.fstype.startswith(NETWORK_FILE_SYSTEMS)
