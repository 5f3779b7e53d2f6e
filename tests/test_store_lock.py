"""Who waits for a store's lock says so if another process fills the store, not if it looks whether one does."""

import fcntl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from harness.data import store_files
from harness.data.store_files import is_locked, locked

WAITING = "another process prepares these features; waiting for it"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "store.lock").touch()
    return tmp_path / "store"


@contextmanager
def held(path, kind):
    """Hold the lock as another process does: what a process has opened twice is two holders."""
    with path.with_name("store.lock").open("r+") as file:
        fcntl.flock(file, kind)
        yield file


@pytest.fixture
def attempts(monkeypatch):
    """Return a semaphore that is released whenever a lock was asked for, whether it was had or not."""
    made, flock = threading.Semaphore(0), fcntl.flock

    def counted(file, kind):
        try:
            flock(file, kind)
        finally:
            made.release()

    monkeypatch.setattr(fcntl, "flock", counted)
    return made


def take(path):
    with locked(path):
        return is_locked(path)


def test_who_looks_whether_a_store_is_locked_is_not_waited_for_aloud(path, attempts, caplog):
    with ThreadPoolExecutor(1) as pool:
        with held(path, fcntl.LOCK_SH):
            attempts.acquire()
            taken = pool.submit(take, path)
            for _ in range(10):
                attempts.acquire(timeout=0.2)
            assert not taken.done()
        assert taken.result(timeout=30)
    assert caplog.text == ""


def test_who_begins_to_fill_a_store_behind_one_who_looks_is_waited_for_aloud(path, monkeypatch, caplog):
    with ThreadPoolExecutor(1) as pool:
        with held(path, fcntl.LOCK_SH) as file:
            begin_to_fill = SimpleNamespace(sleep=lambda _seconds: fcntl.flock(file, fcntl.LOCK_EX))
            monkeypatch.setattr(store_files, "time", begin_to_fill)
            taken = pool.submit(take, path)
            deadline = time.monotonic() + 30
            while WAITING not in caplog.text:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert not taken.done()
        assert taken.result(timeout=30)
    assert caplog.text.count(WAITING) == 1


def test_a_store_is_locked_while_someone_fills_it_and_at_no_other_time(path):
    assert not is_locked(path)
    with held(path, fcntl.LOCK_SH):
        assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)
    assert not is_locked(path.with_name("another"))
