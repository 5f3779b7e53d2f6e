"""The benchmark of preparation, reading and memory at tiny sizes: complete and consistent, whatever the figures."""

import os
import subprocess
import sys

import numpy as np
import pytest

from harness.benchmarks import memory
from harness.benchmarks.cached import MAPPED, OURS, forget, open_rows, write_cache
from harness.benchmarks.memory import measure_memory
from harness.benchmarks.preparation import measure_preparation
from harness.benchmarks.reading import measure_reading, measure_waiting
from tests.conftest import is_positive


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_way_to_prepare_a_data_set_is_compared_with_the_released_code_and_with_one_thread():
    rows = measure_preparation(clips=3, clip_seconds=1.5, rounds=1)
    assert [row.way for row in rows][:2] == ["released code, every epoch", "ours, 1 thread"]
    assert [row.cores for row in rows] == [1, 1, len(os.sched_getaffinity(0))]
    assert all(is_positive(row.clips_per_second, row.ratio.median, row.scaling.median) for row in rows)
    assert (rows[0].ratio.median, rows[1].scaling.median) == (1.0, 1.0)


def test_every_way_to_read_a_store_has_a_speed_warm_and_cold(own_cache):
    rows = measure_reading(store_gb=0.01, rounds=1)
    ways = ["np.memmap", "ours", "ours, read ahead"]
    assert [(row.page_cache, row.way) for row in rows] == [(state, way) for state in ("warm", "cold") for way in ways]
    for row in rows:
        assert is_positive(row.clips_per_second, row.ratio.median)
        assert row.clips_per_second / row.batches_per_second == pytest.approx(38 / 5)  # 10 MB are 38 clips, 5 batches
    assert rows[0].ratio.median == rows[3].ratio.median == 1.0
    assert list(own_cache.iterdir()) == []


def test_the_cache_that_is_read_takes_disk_and_holds_what_the_memory_map_holds(tmp_path):
    write_cache(tmp_path, (1024, 128), n_clips=70)
    ours, mapped = open_rows(tmp_path, OURS, (1024, 128)), open_rows(tmp_path, MAPPED, (1024, 128))
    assert ours.shape == mapped.shape == (70, 1024, 128)
    assert np.isfinite(ours[69]).all()
    assert np.unique(ours[69]).size > 1000
    assert sum(path.stat().st_blocks for path in tmp_path.rglob("*.npy")) * 512 >= 2 * 70 << 18
    forget(tmp_path)
    assert np.array_equal(ours[:], mapped[:])


def test_the_share_of_an_epoch_that_waits_for_clips_is_a_share(own_cache):
    rows = measure_waiting(n_clips=16, rounds=1)
    assert [(row.backbone, row.page_cache) for row in rows] == [("ast-nano", "warm"), ("ast-nano", "cold")]
    assert all(0 <= row.share_waited < 1 and is_positive(row.clips_per_second, row.ratio.median) for row in rows)
    assert list(own_cache.iterdir()) == []


@pytest.mark.drill
def test_the_memory_of_each_process_grows_from_stage_to_stage(tiny_file, own_cache):
    rows = list(measure_memory(backbone=tiny_file, trials=[("noise", 2)], stored_clips=30_000))
    mapped, ours, trial = rows
    assert [row.process for row in rows] == [
        "reading 0.1 GB, np.memmap",
        "reading 0.1 GB, ours",
        f"trial of {tiny_file}, noise, batch 2",
    ]
    assert mapped.peak_mb - mapped.stages_mb["imports"] > 35
    assert ours.peak_mb - ours.stages_mb["imports"] < 20
    assert list(trial.stages_mb) == ["imports", "backbone", "training", "validation"]
    assert list(trial.stages_mb.values()) == sorted(trial.stages_mb.values())
    assert list(own_cache.iterdir()) == []


@pytest.mark.drill
def test_a_process_whose_memory_was_to_be_measured_is_reported_if_it_fails(tmp_path):
    with pytest.raises(RuntimeError, match=r"memory read .* exit code 1\n(.*\n)*FileNotFoundError"):
        memory._run("read", str(tmp_path / "nothing"), "1024", "128", "np.memmap")


def test_a_process_measures_its_own_memory():
    code = """
import numpy as np
from harness.benchmarks.memory import peak_mb
before = peak_mb()
held = np.ones(100_000_000, np.uint8)
print(peak_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
    assert 90 < float(done.stdout) < 120
