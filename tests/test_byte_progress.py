"""Bytes are reported with unit, speed and time left, and what was there before does not count as speed."""

import io
import re
import time

import pytest

from harness.data.byte_progress import _bytes_on_terminal, bytes_in_lines, quiet_bytes, track_bytes


@pytest.mark.parametrize("progress", [quiet_bytes, track_bytes, bytes_in_lines, _bytes_on_terminal])
def test_nothing_is_printed_where_a_command_prints_its_result(progress, capfd):
    with progress("a.tgz") as report:
        report(0, 10)
        report(10, 10)
    assert capfd.readouterr().out == ""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end():
    stream = io.StringIO()
    with bytes_in_lines("a.tgz", stream=stream, line_seconds=0) as report:
        report(1_300_000_000, 2_600_000_000)
        time.sleep(0.1)
        report(1_300_001_000, 2_600_000_000)
        report(2_600_000_000, 2_600_000_000)
    first, second, last = stream.getvalue().splitlines()
    assert first == "a.tgz: 1.3 GB of 2.6 GB, 0 bytes/s, waiting"
    assert re.fullmatch(r"a\.tgz: 1\.3 GB of 2\.6 GB, \d\.\d kB/s, \d+ days?, [\d:]+ left|.*, \d+:[\d:]+ left", second)
    assert re.fullmatch(r"a\.tgz: 2\.6 GB of 2\.6 GB, .*B/s, took 0:00:0\d", last)


def test_without_a_total_there_is_no_time_left():
    stream = io.StringIO()
    with bytes_in_lines("a.tgz", stream=stream) as report:
        report(0, None)
        report(2000, None)
    assert re.fullmatch(r"a\.tgz: 2\.0 kB, .*B/s, took 0:00:00\n", stream.getvalue())


def test_what_never_began_says_nothing(capfd):
    with bytes_in_lines("a.tgz"):
        pass
    assert capfd.readouterr().err == ""


def test_a_terminal_s_bar_begins_where_the_download_goes_on(capfd):
    with _bytes_on_terminal("a.tgz") as report:
        report(500_000, 1_000_000)
        report(1_000_000, 1_000_000)
    assert "1.0/1.0 MB" in capfd.readouterr().err
