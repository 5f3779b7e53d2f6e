"""Loops report themselves without changing what they yield."""

import io

import pytest

from harness.data.progress import _track_on_terminal, quiet, track, track_in_lines


@pytest.mark.parametrize("progress", [quiet, track, track_in_lines, _track_on_terminal])
def test_a_tracked_loop_yields_what_it_is_given(progress, capfd):
    assert list(progress(iter(range(5)), total=5, label="clips")) == [0, 1, 2, 3, 4]
    assert capfd.readouterr().out == ""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end():
    stream = io.StringIO()
    list(track_in_lines(range(3), total=3, label="clips", stream=stream, line_seconds=0))
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["clips: 1/3", "clips: 2/3", "clips: 3/3"]
    assert lines[0].endswith("left")
    assert "/s, took 0:00:0" in lines[-1]


def test_a_loop_without_items_says_so(capfd):
    assert list(track_in_lines([], total=3, label="clips")) == []
    assert capfd.readouterr().err.startswith("clips: 0/3")


def test_a_short_loop_writes_one_line_to_stderr(capfd):
    list(track(range(3), total=3, label="clips"))
    assert capfd.readouterr().err.count("\n") == 1


def test_a_loop_that_is_left_early_still_closes_the_bar(capfd):
    for _ in _track_on_terminal(range(3), total=3, label="clips"):
        break
    assert "clips" in capfd.readouterr().err
