"""Each measurement at tiny sizes: complete and consistent, whatever the figures."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from harness.benchmarks import memory, training
from harness.benchmarks.cached import MAPPED, OURS, forget, open_rows, write_cache
from harness.benchmarks.front_end import measure_front_end, measure_preparation, released_front_end, synthetic_clips
from harness.benchmarks.memory import measure_memory
from harness.benchmarks.overhead import measure_overhead, read_times, run_study
from harness.benchmarks.reading import measure_reading, measure_waiting
from harness.benchmarks.training import TrainingPlan, TransformersAst, measure_training
from harness.common.ray_start import cpu_count
from harness.features.audio import decode
from harness.features.log_mel import FrontEnd, log_mel
from tests.conftest import TINY, is_positive

FAKE_STUDY = """
    import json, os, pathlib, subprocess, sys, time
    flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    home = pathlib.Path(flags["--storage"], flags["--name"])
    rows, now = [], time.time()
    for number in range(int(flags["--trials"])):
        trial = home / "trials" / f"{number:03d}"
        trial.mkdir(parents=True)
        for name, moment in (("best.safetensors", 10 * number + 3), ("last.pt", 10 * number + 4)):
            (trial / name).touch()
            os.utime(trial / name, (now + moment, now + moment))
        rows.append({"number": number, "seconds": 2.0})
    (home / "results.json").write_text(json.dumps(rows[::-1]))
    for _ in range(int(os.environ.get("FAKE_WORKERS", "0"))):
        subprocess.run(["ray::ImplicitFunc.train", "-c", "import time; time.sleep(0.5)"], executable=sys.executable)
    sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
"""


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestFrontEnd:
    def test_every_way_to_the_log_mel_has_a_finite_speed(self):
        rows = measure_front_end(clips=2, clip_seconds=1.5, rounds=1).rows
        ways = ["released code, every epoch", "ours, once", "ours, every epoch", "ours, each of 30 epochs"]
        assert [row["way"] for row in rows] == ways
        assert all(is_positive(row["clips_per_core_second"], row["ratio"].median) for row in rows)
        assert rows[0]["ratio"].median == 1.0

    def test_preparations_are_compared_with_the_released_code_and_with_one_thread(self):
        rows = measure_preparation(clips=3, clip_seconds=1.5, rounds=1).rows
        ways = ["released code, every epoch", "ours, 1 thread", f"ours, {cpu_count()} threads"]
        assert [row["way"] for row in rows] == ways
        for row in rows:
            assert is_positive(row["clips_per_second"], row["ratio"].median, row["scaling"].median)
        assert (rows[0]["ratio"].median, rows[1]["scaling"].median) == (1.0, 1.0)

    def test_the_released_front_end_differs_by_its_peak_normalisation_alone(self, tmp_path):
        (path,) = synthetic_clips(tmp_path, clips=1, seconds=3.0)
        ours, theirs = log_mel(*decode(path), FrontEnd()), released_front_end(path)
        assert theirs.shape == ours.shape
        gain = (theirs - ours)[:290, :110]  # on its way through 22.05 kHz it loses what lies close to 8 kHz
        assert (gain - gain.median()).abs().quantile(0.9) < 0.01
        assert 0 < gain.median() < 10
        assert not theirs[300:].any()


class TestReading:
    def test_every_way_to_read_a_store_has_a_speed_warm_and_cold(self, own_cache):
        rows = measure_reading(store_gb=0.01, rounds=1).rows
        ways = ["np.memmap", "ours", "ours, read ahead"]
        assert [(row["page_cache"], row["way"]) for row in rows] == [(s, way) for s in ("warm", "cold") for way in ways]
        assert all(is_positive(row["clips_per_second"], row["ratio"].median) for row in rows)
        assert rows[0]["ratio"].median == rows[3]["ratio"].median == 1.0
        assert list(own_cache.iterdir()) == []

    def test_the_cache_that_is_read_takes_disk_and_holds_what_the_memory_map_holds(self, tmp_path):
        write_cache(tmp_path, (1024, 128), n_clips=70)
        ours, mapped = open_rows(tmp_path, OURS, (1024, 128)), open_rows(tmp_path, MAPPED, (1024, 128))
        assert ours.shape == mapped.shape == (70, 1024, 128)
        assert np.isfinite(ours[69]).all()
        assert np.unique(ours[69]).size > 1000
        assert sum(path.stat().st_blocks for path in tmp_path.rglob("*.npy")) * 512 >= 2 * 70 << 18
        forget(tmp_path)
        assert np.array_equal(ours[:], mapped[:])

    def test_the_share_of_an_epoch_that_waits_for_clips_is_a_share(self, own_cache):
        rows = measure_waiting(n_clips=16, rounds=1).rows
        assert [row["page_cache"] for row in rows] == ["warm", "cold"]
        assert all(0 <= row["percent_waited"] < 100 for row in rows)
        assert all(is_positive(row["clips_per_second"], row["ratio"].median) for row in rows)
        assert list(own_cache.iterdir()) == []


class TestTraining:
    @pytest.mark.parametrize("has_transformers", [True, False])
    def test_each_combination_is_measured_beside_transformers_if_it_is_installed(
        self, has_transformers, tiny_file, monkeypatch
    ):
        monkeypatch.setattr(training, "find_spec", lambda _: has_transformers or None)
        plan = TrainingPlan([tiny_file], ["fp32", "bf16"], ["noise", "unet"], rounds=1, batch=2, steps=1, device="cpu")
        rows = measure_training(plan).rows
        assert [(row["precision"], row["reprogrammer"]) for row in rows] == [
            (precision, kind) for precision in plan.precisions for kind in plan.reprogrammers
        ]
        for row in rows:
            assert (row["backbone"], row["batch"]) == ("tiny.safetensors on cpu", 2)
            assert is_positive(row["ours"])
            if has_transformers:
                assert is_positive(row["transformers"], row["ratio"].median)
            else:
                assert (row["transformers"], row["ratio"]) == (None, None)

    def test_the_ast_of_transformers_is_frozen_and_of_our_size(self, tiny_backbone):
        theirs = TransformersAst(tiny_backbone)
        counts = [sum(p.numel() for p in model.parameters()) for model in (theirs.model, tiny_backbone)]
        assert counts[0] == counts[1]
        assert not theirs.model.training
        assert not any(p.requires_grad for p in theirs.model.parameters())
        embedding = theirs.embed(torch.randn(2, TINY.n_frames, TINY.n_mels))
        assert embedding.shape == (2, TINY.embed_dim)
        assert theirs.logits(embedding).shape == (2, TINY.n_source_labels)


class TestMemory:
    @pytest.mark.drill
    def test_the_memory_of_each_process_grows_from_stage_to_stage(self, tiny_file, own_cache):
        rows = measure_memory(backbone=tiny_file, trials=[("noise", 2)], stored_clips=30_000).rows
        mapped, ours, trial = (row["by_the_end_of"] for row in rows)
        assert [row["process"] for row in rows] == [
            "reading 0.1 GB, np.memmap",
            "reading 0.1 GB, ours",
            f"trial of {tiny_file}, noise, batch 2",
        ]
        assert mapped["reading"] - mapped["imports"] > 35
        assert ours["reading"] - ours["imports"] < 20
        assert list(trial) == ["imports", "backbone", "training", "validation"]
        assert list(trial.values()) == sorted(trial.values())
        assert rows[2]["peak_mb"] == trial["validation"]
        assert list(own_cache.iterdir()) == []

    @pytest.mark.drill
    def test_a_process_that_fails_is_reported(self, tmp_path):
        with pytest.raises(RuntimeError, match=r"memory read .* exit code 1\n(.*\n)*FileNotFoundError"):
            memory._run("read", str(tmp_path / "nothing"), "1024", "128", "np.memmap")

    def test_a_process_measures_its_own_memory(self):
        code = textwrap.dedent("""
            import numpy as np
            from harness.benchmarks.memory import peak_mb
            before = peak_mb()
            held = np.ones(100_000_000, np.uint8)
            print(peak_mb() - before)
        """)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
        assert 90 < float(done.stdout) < 120


class TestOverhead:
    @pytest.fixture
    def fake_study(self, tmp_path):
        """Return the command of a study whose trials train 2 s, 3 s after the trial before, and end 1 s later."""
        script = tmp_path / "fake_study.py"
        script.write_text(textwrap.dedent(FAKE_STUDY))
        return [sys.executable, str(script)]

    def test_it_is_the_wall_time_less_the_training(self, fake_study):
        measured = measure_overhead(trials=(3, 5), rounds=2, demo_clips=40, study=fake_study)
        beyond, before, after, training, *_ = (row["seconds"] for row in measured.rows)
        assert (before, after) == (pytest.approx(7.0, abs=1e-3), pytest.approx(1.0, abs=1e-3))
        assert training == 2.0
        # the fake's clock is ahead of its wall time: two trials more should have trained 4 s more
        assert beyond == pytest.approx(-2.0, abs=1.0)
        assert measured.caption.startswith("0 worker process(es) ran 5 trials")

    def test_the_first_training_begins_its_own_seconds_before_its_checkpoint(self, tmp_path):
        for name, moment in (("best.safetensors", 1010.0), ("last.pt", 1011.0)):
            file = tmp_path / "trials" / "000" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.utime(file, (moment, moment))
        (tmp_path / "results.json").write_text(json.dumps([{"number": 0, "seconds": 4.0}]))
        times = read_times(tmp_path, wall=15.0, began=1000.0, worker_processes=1)
        assert times.to_first_training == pytest.approx(6.0)
        assert times.beyond_training == pytest.approx(15.0 - 6.0 - 4.0)

    def test_every_process_that_runs_trials_is_counted_once(self, fake_study, tmp_path, monkeypatch):
        monkeypatch.setenv("FAKE_WORKERS", "2")
        assert run_study(fake_study, storage=tmp_path, name="x", trials=1).worker_processes == 2

    def test_a_study_that_fails_is_reported_with_its_exit_code(self, fake_study, tmp_path, monkeypatch):
        monkeypatch.setenv("FAKE_EXIT", "3")
        with pytest.raises(RuntimeError, match=r"fake_study\.py .* --name x: exit code 3"):
            run_study(fake_study, storage=tmp_path, name="x", trials=1)
