"""The command on given figures, and the comparisons that it rests on."""

import io
import json

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from harness import bench
from harness.benchmarks import front_end, memory, overhead, reading, training
from harness.benchmarks.timing import Measurement, Ratio, interleaved, ratio, speed, torch_threads

FIGURES = Measurement("Figures", [{"way": "ours", "clips_per_second": 3286.0, "ratio": Ratio(1.5, 1.0, 2.0)}])
MEASURED = {
    front_end: ("measure_front_end", "measure_preparation"),
    reading: ("measure_reading", "measure_waiting"),
    training: ("measure_training",),
    memory: ("measure_memory",),
    overhead: ("prepare_demo", "measure_overhead"),
}


@pytest.fixture
def run_bench(monkeypatch):
    for module, names in MEASURED.items():
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, **__: FIGURES)

    def run(*flags):
        done = CliRunner().invoke(bench.app, flags)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_the_json_has_every_part_with_its_environment(run_bench):
    report = json.loads(run_bench("--json"))
    assert set(report) == {"environment", *bench.PARTS}
    assert {"machine", "device", "cores", "threads", "load_before", "load_after"} <= set(report["environment"])
    assert report["front-end"][0]["rows"][0]["ratio"] == {"median": 1.5, "lowest": 1.0, "highest": 2.0}
    assert [len(report[part]) for part in ("reading", "memory")] == [2, 1]


def test_the_tables_show_every_figure(run_bench):
    text = run_bench()
    assert text.count("3,286") == 7
    assert "1.50 (1.00 to 2.00)" in text


def test_a_table_names_its_columns_and_marks_a_missing_figure():
    row = {"process": "a", "peak_mb": 1330.0, "by_the_end_of": {"imports": 883.0, "training": 0.8}, "ratio": None}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(Measurement("Memory", [row], "a caption").table())
    text = console.export_text()
    for shown in ("peak mb", "1,330", "imports 883, training 0.8", " - ", "a caption"):
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
