"""The Ray Tune adapter of a session: Tune calls `run_trial` in a worker process, which it reuses for many trials."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from harness.common.records import from_json
from harness.study.records import TrialReport
from harness.study.session import Report, Session, TrialTask
from harness.training.fused import Group


def run_trial(config: Mapping[str, Any]) -> None:
    """Run one trial and report every epoch to Tune."""
    drive([Session(from_json(TrialTask, config["task"]))], tune.report)


def drive(sessions: Sequence[Session], report: Callable[[dict[str, Any]], object]) -> None:
    """Run the sessions together to their ends, and report every epoch."""
    worker = _worker_name()
    group: Group[Report] = Group(sessions)
    for _, found in group:
        report((replace(found, worker=worker) if isinstance(found, TrialReport) else found).to_tune())


def _worker_name() -> str:
    node = ray.get_runtime_context().get_node_id()[:8] if ray.is_initialized() else "local"
    return f"{node}/{os.getpid()}"
