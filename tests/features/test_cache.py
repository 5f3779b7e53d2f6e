"""The feature cache: whole files, checksums on the first read, and the computation of what is lost."""

import json
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.features import cache as cache_module
from harness.features.cache import FORMAT, REASON, CachedRows, FeatureCache, Recipe

RECIPE = Recipe("noise", 1, {"hop_ms": 10.0}, (6, 4))
VALUES = np.random.default_rng(0).normal(size=(40, 6, 4)).astype(np.float16)
DIGESTS = [f"{row:064x}" for row in range(len(VALUES))]


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path / "features", RECIPE)
    cache.prepare()
    for digest, value in zip(DIGESTS, VALUES, strict=True):
        cache.write(digest, value)
    return cache


def restore(row):
    raise AssertionError(f"row {row} was computed again")


@pytest.fixture
def rows(cache):
    return CachedRows(cache, DIGESTS, restore)


def file_of(cache, row):
    return cache.place / f"{DIGESTS[row]}.npy"


# Reading


@pytest.mark.parametrize(
    "index",
    [-1, np.int64(7), [5, 5, 0], slice(2, 9, 3), slice(None), [], np.arange(40) % 3 == 0, np.array([[1, 2], [3, 0]])],
    ids=str,
)
def test_an_index_selects_the_rows_that_it_selects_of_an_array(rows, index):
    found = rows[index]
    assert np.array_equal(found, VALUES[index])
    assert (found.dtype, rows.shape) == (np.float16, VALUES.shape)
    found[:] = 0  # a copy for its reader
    assert np.array_equal(rows[index], VALUES[index])


@pytest.mark.parametrize("index", [40, -41, [0, 99]])
def test_a_row_that_is_not_there_is_an_index_error(rows, index):
    with pytest.raises(IndexError):
        rows[index]


def test_a_row_without_features_cannot_be_read(cache):
    with pytest.raises(ValueError, match="row 1: it has no features"):
        CachedRows(cache, [DIGESTS[0], ""], restore)[:]


def test_reading_leaves_no_file_open_and_reads_in_groups_of_bounded_size(rows):
    before = len(list(Path("/proc/self/fd").iterdir()))
    rows[np.arange(4000) % 40]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_many_threads_read_at_once(rows):
    failed = []

    def read(seed):
        wanted = np.random.default_rng(seed).integers(0, 40, 200)
        failed.extend(row for row in wanted if not np.array_equal(rows[[row, 0]], VALUES[[row, 0]]))

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    [reader.start() for reader in readers]
    [reader.join() for reader in readers]
    assert failed == []


@pytest.mark.parametrize(("shape", "dtype"), [((), "<f4"), ((7,), "<i2"), ((3, 2, 2), "<f8")])
def test_arrays_of_any_shape_and_type_are_kept_such_as_embeddings(tmp_path, shape, dtype):
    cache = FeatureCache(tmp_path, Recipe("embedding", 1, {"backbone": "0123", "layer": 3}, shape, dtype))
    value = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    cache.prepare()
    cache.write(DIGESTS[0], value)
    rows = CachedRows(cache, DIGESTS[:1], restore)
    assert np.array_equal(rows[[0]], value[None])
    assert rows.dtype == dtype


# Damage


def spoil(path, position=-20):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def swap(path):
    other = path.with_name(f"{DIGESTS[0]}.npy")
    path.write_bytes(other.read_bytes())


DAMAGE = {
    "a bit of the values": spoil,
    "a bit of the header": lambda path: spoil(path, 30),
    "a bit of the checksum": lambda path: spoil(path, -1),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty, after a power cut": lambda path: os.truncate(path, 0),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "another file's content": swap,
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_row_alone_is_computed_again_on_the_first_read(cache, damage, caplog):
    damage(file_of(cache, 3))
    computed = []

    def compute(row):
        computed.append(row)
        return VALUES[row]

    assert np.array_equal(CachedRows(cache, DIGESTS, compute)[:], VALUES)
    assert computed == [3]
    assert f"{file_of(cache, 3)}: missing or damaged" in caplog.text


def test_a_row_is_checked_once_in_a_process_and_again_where_it_was_lost(cache, monkeypatch):
    checked, checksum = [], FeatureCache._checksum
    monkeypatch.setattr(
        FeatureCache, "_checksum", lambda s, d, c: checked.append(DIGESTS.index(d)) or checksum(s, d, c)
    )
    spoil(file_of(cache, 3))
    rows = CachedRows(cache, DIGESTS, lambda row: VALUES[row])
    for _ in range(3):
        assert np.array_equal(rows[2:5], VALUES[2:5])
    assert sorted(checked) == [2, 3, 3, 3, 4]


def test_a_thousand_lost_rows_are_not_a_thousand_warnings(cache, caplog):
    rows = CachedRows(cache, DIGESTS, lambda row: VALUES[row])
    for path in cache.place.glob("*.npy"):
        path.unlink()
    rows[:]
    assert len(caplog.records) == 5


# Writing


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there_and_no_other_file(cache, monkeypatch, error):
    def fail(*_):
        raise error

    names = sorted(path.name for path in cache.place.iterdir())
    monkeypatch.setattr(cache_module.Path, "replace", fail)
    with pytest.raises(type(error)) as raised:
        cache.write(DIGESTS[3], VALUES[4])
    assert sorted(path.name for path in cache.place.iterdir()) == names
    assert np.array_equal(np.load(file_of(cache, 3)), VALUES[3])
    if isinstance(error, OSError):
        assert "No space left" in str(raised.value)
        assert "REPROGRAMMING_CACHE" in str(raised.value)


def test_who_writes_the_same_row_at_the_same_time_writes_a_whole_file(cache):
    writers = [threading.Thread(target=lambda: [cache.write(DIGESTS[0], VALUES[0]) for _ in range(50)]) for _ in "123"]
    [writer.start() for writer in writers]
    rows = CachedRows(cache, DIGESTS, restore)
    while any(writer.is_alive() for writer in writers):
        assert np.array_equal(rows[0], VALUES[0])
        rows._is_checked[:] = False  # so that each read compares the checksum
    assert not list(cache.place.glob("*.part"))


def test_what_a_killed_process_left_is_cleared_after_a_day(cache):
    old, fresh = cache.place / "a.npy.1.part", cache.place / "b.npy.2.part"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (0, time.time() - 90_000))
    cache.prepare()
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_reason_is_kept_and_one_that_a_power_cut_spoiled_is_none(cache):
    cache.note("a" * 64, REASON, "not readable as sound (é)")
    assert (cache.reason("a" * 64), cache.has("a" * 64)) == ("not readable as sound (é)", True)
    assert (cache.stored(), cache.stored(REASON)) == (set(DIGESTS), {"a" * 64})
    os.truncate(cache.place / f"{'a' * 64}.txt", 3)
    assert (cache.reason("a" * 64), cache.has("a" * 64)) == ("", False)


# Recipes and versions


@pytest.mark.parametrize(
    "change", [{"kind": "log_mel"}, {"version": 2}, {"settings": {"hop_ms": 9.0}}, {"shape": (4, 6)}, {"dtype": "<f4"}]
)
def test_whatever_shapes_the_values_is_part_of_the_folders_name(change):
    assert replace(RECIPE, **change).name != RECIPE.name


def test_the_recipe_lies_beside_its_arrays(cache):
    found = json.loads((cache.place / "recipe.json").read_text())
    assert (found["format"], found["kind"], found["settings"]) == (FORMAT, "noise", {"hop_ms": 10.0})


def test_caches_of_earlier_versions_are_named_and_left(tmp_path, caplog):
    contents = {
        "0123": ("index.json", {"format": 5}),
        "noise-older": ("recipe.json", {"format": FORMAT, "kind": "noise", "version": 0}),
        "noise-format": ("recipe.json", {"format": FORMAT - 1, "kind": "noise", "version": 1}),
        "noise-later": ("recipe.json", {"format": FORMAT + 1, "kind": "noise", "version": 2}),
        "other": ("recipe.json", {"format": FORMAT, "kind": "other", "version": 0}),
        "damaged": ("recipe.json", [1]),
    }
    for name, (file, content) in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        FeatureCache(tmp_path, RECIPE).prepare()
        FeatureCache(tmp_path, RECIPE).prepare()
    (record,) = caplog.records
    assert record.getMessage().endswith("0123, noise-format, noise-older")
    assert all((tmp_path / name).exists() for name in contents)
