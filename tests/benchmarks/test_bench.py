"""The benchmark at tiny sizes: what it reports is complete and consistent. How fast anything is, no test claims."""

import json
import os
import sys
import textwrap

import pytest
import torch
from typer.testing import CliRunner

from harness import bench
from harness.benchmarks import training
from harness.benchmarks.front_end import RELEASED, measure_front_end, released_front_end, synthetic_clips
from harness.benchmarks.memory import Memory
from harness.benchmarks.overhead import measure_overhead, read_times, run_study
from harness.benchmarks.preparation import measure_preparation
from harness.benchmarks.reading import measure_reading, measure_waiting
from harness.benchmarks.timing import interleaved, ratio, speed, torch_threads
from harness.benchmarks.training import TrainingPlan, TransformersAst, measure_training
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
        subprocess.run(["ray::ImplicitFunc.train", "-c", "import time; time.sleep(0.8)"], executable=sys.executable)
    sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
"""


@pytest.fixture
def fake_study(tmp_path):
    """Return the command of a study whose trials train 2 s, 3 s after the trial before, and end 1 s later."""
    script = tmp_path / "fake_study.py"
    script.write_text(textwrap.dedent(FAKE_STUDY))
    return [sys.executable, str(script)]


def test_ways_take_turns_and_the_first_round_is_not_counted():
    calls = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_the_preparation_of_a_turn_is_not_counted():
    calls = []
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = interleaved(ways, rounds=2, clock=lambda: len(calls), before_each=lambda: calls.append("-"))
    assert "".join(calls) == "ab" + "-a-b" * 2
    assert seconds == {"a": (1, 1), "b": (1, 1)}


def test_a_spent_limit_ends_after_three_rounds():
    assert len(interleaved({"a": lambda: None}, rounds=50, limit_seconds=0)["a"]) == 3
    assert len(interleaved({"a": lambda: None}, rounds=2, limit_seconds=0)["a"]) == 2


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds=0 of 1 ways: at least one of each"):
        interleaved({"a": lambda: None}, rounds=0)


def test_a_ratio_is_how_many_times_as_fast_round_by_round():
    compared = ratio([1.0, 2.0, 4.0], [2.0, 8.0, 4.0])
    assert (compared.median, compared.lowest, compared.highest) == (2.0, 1.0, 4.0)
    assert speed(10, [1.0, 2.0, 40.0]) == 5.0


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_every_way_to_the_log_mel_has_a_finite_speed():
    rows = measure_front_end(clips=2, clip_seconds=1.5, rounds=1)
    assert [row.way for row in rows] == [
        "released code, every epoch",
        "ours, once",
        "ours, every epoch",
        "ours, each of 30 epochs",
    ]
    assert all(is_positive(row.clips_per_core_second, row.ratio.median) for row in rows)
    assert rows[0].ratio.median == 1.0


def test_the_released_front_end_differs_by_its_peak_normalisation_alone(tmp_path):
    dataset = synthetic_clips(tmp_path, clips=1, seconds=3.0)
    samples, sample_rate = decode(dataset.paths[0])
    ours = log_mel(samples, sample_rate, FrontEnd())
    theirs = released_front_end(dataset.paths[0])
    assert theirs.shape == ours.shape
    gain = (theirs - ours)[:290, :110]  # on its way through 22.05 kHz it loses what lies close to 8 kHz
    assert (gain - gain.median()).abs().quantile(0.9) < 0.01
    assert 0 < gain.median() < 10
    assert not theirs[300:].any()


def test_each_combination_is_measured_beside_transformers(tiny_file):
    plan = TrainingPlan([tiny_file], reprogrammers=("noise", "unet"), rounds=1, batch=2, steps=1)
    rows = list(measure_training(plan))
    assert [(row.precision, row.reprogrammer) for row in rows] == [
        (precision, kind) for precision in ("fp32", "bf16") for kind in ("noise", "unet")
    ]
    for row in rows:
        assert is_positive(row.samples_per_second, row.transformers_samples_per_second, row.ratio.median)
        assert (row.batch, row.steps_per_round, row.rounds, row.device) == (2, 1, 1, "cpu")


def test_the_ast_of_transformers_is_frozen_and_of_our_size(tiny_backbone):
    theirs = TransformersAst(tiny_backbone)
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs.model, tiny_backbone)]
    assert counts[0] == counts[1]
    assert not theirs.model.training
    assert not any(p.requires_grad for p in theirs.model.parameters())
    embedding = theirs.embed(torch.randn(2, TINY.n_frames, TINY.n_mels))
    assert embedding.shape == (2, TINY.embed_dim)
    assert theirs.logits(embedding).shape == (2, TINY.n_source_labels)


def test_the_overhead_is_the_wall_time_less_the_training(fake_study):
    overhead = measure_overhead(trials=(3, 5), rounds=2, demo_clips=40, study=fake_study)
    assert (overhead.trials, overhead.rounds, overhead.training_per_trial) == ((3, 5), 2, 2.0)
    assert overhead.before_training == pytest.approx(7.0, abs=1e-3)
    assert overhead.after_training == pytest.approx(1.0, abs=1e-3)
    # the fake's clock is ahead of its wall time: two trials more should have trained 4 s more
    assert overhead.per_trial == pytest.approx(-2.0, abs=1.0)
    assert (overhead.worker_processes, overhead.are_workers_reused) == (0, False)


def test_the_first_training_begins_its_own_seconds_before_its_checkpoint(tmp_path):
    for name, moment in (("best.safetensors", 1010.0), ("last.pt", 1011.0)):
        file = tmp_path / "trials" / "000" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (moment, moment))
    (tmp_path / "results.json").write_text(json.dumps([{"number": 0, "seconds": 4.0}]))
    times = read_times(tmp_path, wall=15.0, began=1000.0, worker_processes=1)
    assert times.to_first_training == pytest.approx(6.0)
    assert times.beyond_training == pytest.approx(15.0 - 6.0 - 4.0)


def test_every_process_that_runs_trials_is_counted_once(fake_study, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_WORKERS", "2")
    assert run_study(fake_study, storage=tmp_path, name="x", trials=1).worker_processes == 2


def test_a_study_that_fails_is_reported_with_its_exit_code(fake_study, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_EXIT", "3")
    with pytest.raises(RuntimeError, match=r"fake_study\.py .* --name x: exit code 3"):
        run_study(fake_study, storage=tmp_path, name="x", trials=1)


def run_bench(tiny_file, fake_study, tmp_path, monkeypatch, *flags):
    shrink(monkeypatch, fake_study)
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    chosen = ["--backbones", tiny_file, "--precisions", "fp32", "--rounds", "1"]
    result = CliRunner().invoke(bench.app, [*chosen, *flags])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_json_has_every_part_with_its_environment(tiny_file, fake_study, tmp_path, monkeypatch):
    report = json.loads(run_bench(tiny_file, fake_study, tmp_path, monkeypatch, "--reprogrammers", "cnn", "--json"))
    assert set(report) == {"environment", *bench.PARTS}
    assert {"machine", "device", "cores", "threads", "load_before", "load_after"} <= set(report["environment"])
    assert report["front-end"][0]["way"] == RELEASED
    assert report["training"][0]["backbone"] == tiny_file
    assert report["overhead"]["are_workers_reused"] is False
    assert report["preparation"][0]["way"] == RELEASED
    assert {row["page_cache"] for part in report["reading"].values() for row in part} == {"warm", "cold"}
    assert report["memory"][0]["peak_mb"] == 2000.0


def test_the_tables_show_every_part_without_transformers_too(tiny_file, fake_study, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    text = run_bench(tiny_file, fake_study, tmp_path, monkeypatch, "--reprogrammers", "none")
    for title in ("Front end", "Preparation", "Reading", "Training step", "Memory", "Harness overhead"):
        assert f"{title}" in text
    assert "not installed" in text
    assert "waits for clips" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--only", "speed"],
            "only='speed': must be one of front-end, preparation, reading, training, memory, overhead",
        ),
        (["--precisions", "fp8"], "precisions='fp8': must be one of fp32, bf16"),
        (["--only", "training", "--backbones", "ast-huge"], "backbone='ast-huge': must be one of"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(flags, message):
    result = CliRunner().invoke(bench.app, flags)
    assert result.exit_code == 2
    assert message in result.stderr


def shrink(monkeypatch, fake_study):
    """Make every part of the command tiny: two short clips, one step, studies and a process that are none."""
    monkeypatch.setattr(
        bench, "measure_front_end", lambda *, rounds: measure_front_end(clips=2, clip_seconds=1.0, rounds=rounds)
    )
    monkeypatch.setattr(
        bench,
        "measure_preparation",
        lambda *, rounds: measure_preparation(clips=2, clip_seconds=1.0, rounds=rounds),
    )
    monkeypatch.setattr(
        bench, "measure_reading", lambda *, store_gb, rounds: measure_reading(store_gb=0.01, rounds=rounds)
    )
    monkeypatch.setattr(bench, "measure_waiting", lambda *, rounds: measure_waiting(n_clips=8, rounds=rounds))
    monkeypatch.setattr(bench, "measure_memory", lambda: [Memory("reading", {"imports": 100.0, "reading": 2000.0})])
    monkeypatch.setattr(training, "_STEPS", 1)
    monkeypatch.setattr(bench, "prepare_demo", lambda clips: None)
    monkeypatch.setattr(
        bench,
        "measure_overhead",
        lambda *, rounds, demo_clips: measure_overhead(
            trials=(3, 4), rounds=rounds, demo_clips=demo_clips, study=fake_study
        ),
    )
