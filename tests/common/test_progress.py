"""Loops report themselves without changing what they yield."""

import io
from types import SimpleNamespace

import pytest

from harness.common import progress as progress_module
from harness.common.progress import _track_on_terminal, quiet, track, track_in_lines


@pytest.mark.parametrize("progress", [quiet, track, track_in_lines, _track_on_terminal])
def test_a_tracked_loop_yields_what_it_is_given(progress, capfd):
    assert list(progress(iter(range(5)), total=5, label="clips")) == [0, 1, 2, 3, 4]
    assert capfd.readouterr().out == ""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end():
    stream = io.StringIO()
    list(track_in_lines(range(3), total=3, label="clips", stream=stream, line_seconds=0))
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["clips: 2/3", "clips: 3/3"]
    assert lines[0].endswith("left")
    assert "/s, took 0:00:0" in lines[-1]


def test_the_time_left_is_told_from_when_the_first_items_came(monkeypatch):
    """Ray's workers took a minute to start; then the clips of one task came at once, and since then one a second."""
    now = 0.0
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: now))

    def slow_to_start():
        nonlocal now
        for item in range(100):
            now += 60 if item == 0 else 0 if item < 16 else 1
            yield item

    stream = io.StringIO()
    list(track_in_lines(slow_to_start(), total=100, label="clips", stream=stream, line_seconds=20))
    assert stream.getvalue().splitlines() == [
        "clips: 36/100, 1.8/s, 0:00:37 left",
        "clips: 56/100, 1.4/s, 0:00:32 left",
        "clips: 76/100, 1.2/s, 0:00:19 left",
        "clips: 96/100, 1.2/s, 0:00:03 left",
        "clips: 100/100, 0.7/s, took 0:02:24",
    ]


@pytest.mark.parametrize("n", [0, 3])
def test_a_short_loop_writes_one_line_to_stderr(n, capfd):
    assert list(track(range(n), total=3, label="clips")) == list(range(n))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"clips: {n}/3")


def test_a_loop_that_is_left_early_still_closes_the_bar(capfd):
    for _ in _track_on_terminal(range(3), total=3, label="clips"):
        break
    assert "clips" in capfd.readouterr().err
