"""What a study shows while it runs and when it ends."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.common.cli import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK
from harness.study.console import Progress, StudyConsole, clock
from harness.study.results import Row
from harness.study.run import Outcome


def row(number, macro_f1, params, state="done", *, is_constant=False):
    return Row(
        number=number,
        state=state,
        macro_f1=macro_f1,
        positive_f1=None if macro_f1 is None else macro_f1 - 0.1,
        params=params,
        system="unet depth 3 width 4",
        mapper="many_to_one",
        schedule="one_cycle 1.0e-03",
        epochs=8,
        seconds=12.3,
        reason="",
        worker="",
        is_constant=is_constant,
        is_best=False,
        f1_by_label={},
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (3725, "1:02:05")])
def test_times_read_as_on_a_clock(seconds, text):
    assert clock(seconds) == text


def test_the_line_of_progress_names_counts_and_the_best():
    progress = Progress(12, done=3, stopped=2, failed=1, running={6: 1, 7: 0}, best=0.61234, best_number=4)
    line = progress.line()
    for part in ("6/12 trials", "3 done", "2 stopped early", "1 failed", "2 running", "0.612 (trial 4)"):
        assert part in line
    assert "ETA" not in line  # there is nothing yet to go by


def test_what_searches_nothing_shows_no_best():
    line = Progress(4, noun="runs", shows_best=False, done=1, best=0.6, best_number=0).line()
    assert "1/4 runs: 1 done, 0 failed, 0 running" in line
    assert "best" not in line


def test_the_time_left_follows_the_rate_of_epochs():
    progress = Progress(10, done=5, epochs_reported=20, mean_epochs=4.0, training_since=time.monotonic() - 40)
    assert progress.seconds_left() == pytest.approx(40, rel=0.05)
    progress.deadline = time.monotonic() + 10
    assert progress.seconds_left() == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("width", [50, 80, 120, 140])
def test_no_number_of_the_table_is_cut_at_any_width(width):
    rows = [row(113, 0.7, 87_254_321), row(0, None, None, "failed"), row(2, 0.621, 5, is_constant=True)]
    stream = io.StringIO()
    StudyConsole(Console(file=stream, width=width)).table("Study s", rows)
    text = stream.getvalue()
    for part in ("macro-F1", "0.700", "113", "failed", "constant"):
        assert part in text
    figures, _, left_out = text.partition("too narrow for")
    for part, heading in (("87,254,321", "params"), ("0.600", "positive F1"), ("many_to_one", "mapper")):
        assert (part in figures) != (heading in left_out)
    assert "…" not in text
    assert bool(left_out) == (width < 140)


def test_away_from_a_terminal_progress_is_repeated_now_and_then_only():
    stream = io.StringIO()
    console = StudyConsole(Console(file=stream, width=130))
    console.start()
    for _ in range(50):
        console.show(Progress(3))
    console.stop()
    assert stream.getvalue().count("0/3 trials") == 1


@pytest.mark.parametrize(
    ("rows", "remains", "is_interrupted", "code"),
    [
        ([row(0, 0.5, 10)], False, False, EXIT_OK),
        ([row(0, None, None)], False, False, EXIT_FAILURE),  # no figure at all
        ([row(0, None, None, "interrupted")], True, False, EXIT_OK),  # the time budget ended it before an epoch
        ([row(0, 0.5, 10), row(1, None, None, "failed")], False, False, EXIT_FAILURE),
        ([row(0, 0.5, 10)], True, True, EXIT_INTERRUPTED),
    ],
)
def test_the_exit_code_tells_failure_from_an_early_end(rows, remains, is_interrupted, code):
    outcome = Outcome(rows, Path(), (), None, "", has_remaining_trials=remains, is_interrupted=is_interrupted)
    assert outcome.code == code
