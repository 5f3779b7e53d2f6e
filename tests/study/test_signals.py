"""SIGTERM around Ray Tune: whenever it comes, the command ends in order and says how to go on."""

import os
import signal

import pytest
import typer
from ray.tune.tune import _setup_signal_catching

from harness.common.cli import EXIT_INTERRUPTED, report_errors, sigterm_ends_tune_in_order


@pytest.fixture(autouse=True)
def handlers_as_they_were():
    """Put all handlers back; SIGUSR1, which would end the test run by default, is ignored unless the test minds it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_before_tune_listens_sigterm_ends_the_command_with_its_exit_code_and_a_line(capsys):
    def command():
        with report_errors(lambda: "go on with --resume s"), sigterm_ends_tune_in_order():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == EXIT_INTERRUPTED
    assert "interrupted; nothing that was computed is lost: go on with --resume s" in capsys.readouterr().err


def test_once_tune_listens_sigterm_asks_it_to_end_in_order():
    with sigterm_ends_tune_in_order():
        asked = _setup_signal_catching()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(5)


def test_afterwards_both_signals_mean_what_they_meant():
    def mine(*_):
        raise AssertionError("no signal was sent")

    signal.signal(signal.SIGTERM, mine)
    signal.signal(signal.SIGUSR1, mine)
    with sigterm_ends_tune_in_order():
        _setup_signal_catching()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGUSR1) is mine
