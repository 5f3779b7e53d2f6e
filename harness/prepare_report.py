"""What `python -m harness.data prepare` says at its end."""

import shlex
from collections.abc import Mapping, Sequence

from rich import filesize

from harness.data.left_out import LEFT_OUT, is_known_to_be_corrupted
from harness.data.openmic import audio_name
from harness.prepare_data import Outcome, Prepared

_N_NAMED = 20


def lines_of(outcomes: Sequence[Outcome], flags: Sequence[str]) -> list[str]:
    """Return the report: this machine's store, the others' beside it, and the study that the flags prepare for."""
    (_, ours), *others = outcomes
    assert isinstance(ours, Prepared)
    lines = [
        f"store     {ours.path}, {filesize.decimal(ours.n_bytes)} on disk",
        f"clips     {_clips(ours)}",
        *_left_out(ours),
        f"memory    {_memory(ours)}",
    ]
    lines += [f"machine   {host}: {_machine(outcome)}" for host, outcome in others]
    return [*lines, f"use it    python -m harness.study --space unet {' '.join(flags)}"]


def as_flags(values: Mapping[str, object]) -> list[str]:
    """Return flags as they are typed, without those that are None."""
    return [f"{flag} {shlex.quote(str(value))}" for flag, value in values.items() if value is not None]


def _clips(prepared: Prepared) -> str:
    n_ready = prepared.n_clips - len(prepared.unreadable)
    there = f"{n_ready:,} of {prepared.n_clips:,} ready"
    if not prepared.n_computed:
        return f"{there}, all of them before"
    rate = prepared.n_computed / prepared.seconds
    cores = f"{prepared.cores} cores" if prepared.cores > 1 else "1 core"
    return f"{there}; {prepared.n_computed:,} computed in {prepared.seconds:,.0f} s, {rate:.1f} clips/s on {cores}"


def _left_out(prepared: Prepared) -> list[str]:
    """Return which clips are left out, known corrupted tracks apart, and where all are listed."""
    known = [key for key in prepared.unreadable if is_known_to_be_corrupted(key)]
    others = [key for key in prepared.unreadable if not is_known_to_be_corrupted(key)]
    lines = [f"left out  {len(known)} of tracks known to be corrupted: {', '.join(known)}"] if known else []
    if others:
        lines.append(f"left out  {len(others)} that cannot be read:")
        lines += [f"          {audio_name(key)}: {prepared.unreadable[key]}" for key in others[:_N_NAMED]]
        lines += [f"          and {len(others) - _N_NAMED} more"] if len(others) > _N_NAMED else []
    return [*lines, f"listed    {prepared.path}/{LEFT_OUT}"] if lines else []


def _memory(prepared: Prepared) -> str:
    text = f"{filesize.decimal(prepared.process_bytes)} resident at most"
    worker = f", {filesize.decimal(prepared.worker_bytes)} in each of Ray's workers"
    return text + (worker if prepared.worker_bytes else "")


def _machine(outcome: Prepared | str) -> str:
    if isinstance(outcome, str):
        return f"not ready, {outcome}; its trials compute what is missing if they find the audio"
    return f"{outcome.path}: {_clips(outcome)}; {_memory(outcome)}"
