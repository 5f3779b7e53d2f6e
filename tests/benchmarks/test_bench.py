"""The command on given figures, and the comparisons that it rests on."""

import json

import pytest
import torch
from typer.testing import CliRunner

from harness import bench
from harness.benchmarks import front_end, memory, overhead, reading, training
from harness.benchmarks.timing import Ratio, interleaved, ratio, speed, torch_threads

RATIO = Ratio(1.5, 1.0, 2.0)
MEASURED = {
    (front_end, "measure_front_end"): [front_end.FrontEndSpeed("ours, once", 2, 10.0, 1, 48.1, RATIO)],
    (front_end, "measure_preparation"): [front_end.PreparationSpeed("ours, 2 threads", 2, 2, 1, 88.5, RATIO, RATIO)],
    (reading, "measure_reading"): [reading.ReadingSpeed("ours", "cold", 5.2, 8, 1, 3286.0, 410.0, RATIO)],
    (reading, "measure_waiting"): [reading.Waiting("ast-nano", "cold", 8, 1, 90.0, 0.002, RATIO)],
    (training, "measure_training"): [
        training.TrainingSpeed("ast-nano", "fp32", "noise", "cpu", 8, 8, 1, 252.0, 216.0, RATIO),
        training.TrainingSpeed("ast-nano", "fp32", "unet", "cpu", 8, 8, 1, 91.6, None, None),
    ],
    (memory, "measure_memory"): [memory.Memory("a trial", {"imports": 883.0, "training": 1330.0})],
    (overhead, "prepare_demo"): None,
    (overhead, "measure_overhead"): overhead.Overhead((3, 13), 1, 0.8, 2.0, 0.4, 0.4, 9.0, 1, (20.0, 48.0)),
}


@pytest.fixture
def run_bench(monkeypatch):
    for (module, name), figures in MEASURED.items():
        monkeypatch.setattr(module, name, lambda *_, figures=figures, **__: figures)

    def run(*flags):
        done = CliRunner().invoke(bench.app, flags)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_the_json_has_every_part_with_its_environment(run_bench):
    report = json.loads(run_bench("--json"))
    assert set(report) == {"environment", *bench.PARTS}
    assert {"machine", "device", "cores", "threads", "load_before", "load_after"} <= set(report["environment"])
    assert report["front-end"][0]["ratio"] == {"median": 1.5, "lowest": 1.0, "highest": 2.0}
    assert report["reading"]["training"][0]["share_waited"] == 0.002
    assert (report["memory"][0]["peak_mb"], report["overhead"]["are_workers_reused"]) == (1330.0, True)


def test_the_tables_show_every_part(run_bench):
    text = run_bench()
    for shown in ("48.1", "88.5", "3,286", "0.20%", "252", "not installed", "1,330", "0.80", "1.50 (1.00 to 2.00)"):
        assert shown in text


def test_only_the_parts_that_are_named_are_measured(run_bench):
    assert set(json.loads(run_bench("--only", "memory,reading", "--json"))) == {"environment", "memory", "reading"}


@pytest.mark.parametrize(
    ("flag", "value", "known"),
    [("only", "speed", "front-end"), ("precisions", "fp8", "bf16"), ("reprogrammers", "vae", "unet")],
)
def test_an_unknown_choice_names_the_known_ones(flag, value, known):
    done = CliRunner().invoke(bench.app, [f"--{flag}", value])
    assert done.exit_code == 2
    assert f"{flag}={value!r}" in done.stderr
    assert known in done.stderr


def test_ways_take_turns_and_the_first_round_is_not_counted():
    calls = []
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = interleaved(ways, rounds=2, clock=lambda: len(calls), before_each=lambda: calls.append("-"))
    assert "".join(calls) == "ab" + "-a-b" * 2
    assert seconds == {"a": (1, 1), "b": (1, 1)}, "the preparation of a turn is not counted"


@pytest.mark.parametrize(("rounds", "done"), [(50, 3), (2, 2)])
def test_a_spent_limit_ends_after_three_rounds(rounds, done):
    assert len(interleaved({"a": lambda: None}, rounds=rounds, limit_seconds=0)["a"]) == done


def test_a_ratio_is_how_many_times_as_fast_round_by_round():
    assert ratio([1.0, 2.0, 4.0], [2.0, 8.0, 4.0]) == Ratio(2.0, 1.0, 4.0)
    assert speed(10, [1.0, 2.0, 40.0]) == 5.0


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
