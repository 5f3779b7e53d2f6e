"""One trial on one worker: where training, metrics, checkpoints and reporting meet.

A worker process is reused for many trials. What it may keep from one to the next, the frozen backbone and the
memory-mapped data, is in this module's caches; all else is set anew when a trial begins.
"""

import contextlib
import gc
import json
import logging
import os
import random
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from harness.config.study import DataSpec
from harness.config.trial import TrialConfig
from harness.data.batches import Part, StudyData
from harness.data.rows import UnreadableRowsError
from harness.features.log_mel import FrontEnd
from harness.models.backbones.ast import Ast
from harness.models.backbones.checkpoints import backbone_digest, load_backbone
from harness.study.files import BEST, LAST, TrialFiles
from harness.study.heldout import open_test_part, read_test_once
from harness.study.log import TrialLog
from harness.study.sources import open_dataset, open_study_data
from harness.training.learner import Learner, make_learner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs to run one trial, as plain values that any node can read.

    `data_digest` is that of the features which the trial's system hears. With `reads_test`, the best weights by
    validation are tried on the test clips at the end, once.
    """

    number: int
    paths: Mapping[str, Any]
    epochs: int
    seed: int
    backbone: str
    backbone_digest: str
    data: Mapping[str, Any]
    data_digest: str
    precision: str
    shared: str
    threads: int
    reads_test: bool = False

    def to_json(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrialTask":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def run_trial(config: Mapping[str, Any]) -> None:
    """Train one configuration and report every epoch: Ray Tune's trainable.

    What goes wrong inside a trial is reported as its result, `failed`, and not raised: Ray would take it for a lost
    worker and run the trial again.
    """
    task = TrialTask.from_json(config["task"])
    worker = f"{ray.get_runtime_context().get_node_id()[:8]}/{os.getpid()}"
    for report in reports(task):
        tune.report({**report, "worker": worker})


def reports(task: TrialTask) -> Iterator[dict[str, Any]]:
    """Yield what `run_trial` reports: one mapping an epoch, or one with `failed` if the trial cannot go on."""
    files = TrialFiles(task.shared, task.number)
    try:
        yield from _epochs_of_data_that_may_break(task, files)
    except Exception as error:
        logger.warning("trial %d failed: %s", task.number, error)
        with contextlib.suppress(OSError):  # the storage itself may be what failed
            files.write("error.txt", traceback.format_exc().encode())
        yield {"number": task.number, "failed": f"{type(error).__name__}: {error}"}


def _epochs_of_data_that_may_break(task: TrialTask, files: TrialFiles) -> Iterator[dict[str, Any]]:
    """Yield what `_epochs` does; where the data can no longer be read, once more from there, with the data opened anew.

    Who opens a store makes anew what is missing of it or damaged. This worker would otherwise hold on to the broken one
    for as long as it lives, and fail each trial that it is given.
    """
    for is_last_try in (False, True):
        try:
            yield from _epochs(task, files)
        except UnreadableRowsError as error:
            _data.cache_clear()
            if is_last_try:
                raise
            logger.warning("trial %d goes on from its last epoch, with its data opened anew: %s", task.number, error)
        else:
            return


def _epochs(task: TrialTask, files: TrialFiles) -> Iterator[dict[str, Any]]:
    device = _reset_process(task)
    config = TrialConfig.from_paths(task.paths)
    backbone, front_end = _hearing(task, config, device)
    data = _data(json.dumps(task.data), task.data_digest, front_end)
    untouched = _versions(backbone)
    learner = make_learner(
        config,
        backbone=backbone,
        data=data,
        epochs=task.epochs,
        seed=task.seed,
        device=device,
        precision=task.precision,
    )
    log = TrialLog(task.number, learner.parameter_counts())

    def report() -> dict[str, Any]:
        return {**log.report(), **_test_result(task, files, config=config, learner=learner, log=log, data=data)}

    if (state := files.load(LAST)) is not None:
        learner.restore(state["trainer"])
        log.records = state["records"]
        # the driver may not have heard of the last epoch before it, or this worker, went away
        yield report()
    for result in learner.run():
        _check_untouched(backbone, untouched)
        is_best = log.add(result)
        if is_best:
            files.save(BEST, {"model": learner.weights(), "paths": config.to_paths(), "epoch": result.epoch})
        if result.epoch == task.epochs:  # of a forest, the first and only one
            from harness.study.artifacts import write_artifacts  # noqa: PLC0415  25 MB that training can do without

            write_artifacts(files, learner=learner, data=data, records=log.records, device=device)
        # last, since a trial that finds this file takes the epoch and all that goes with it for done
        files.save(LAST, {"trainer": learner.state(), "records": log.records})
        yield report()


def _hearing(task: TrialTask, config: TrialConfig, device: torch.device) -> tuple[Ast | None, FrontEnd | None]:
    """Return the backbone and the front end that a system hears through: none if it hears VGGish features."""
    if config.system.inputs != "log_mel":
        return None, None
    backbone = _backbone(task.backbone, task.backbone_digest, str(device))
    return backbone, replace(backbone.geometry.front_end, **asdict(config.front_end))


def _test_result(
    task: TrialTask, files: TrialFiles, *, config: TrialConfig, learner: Learner, log: TrialLog, data: StudyData
) -> dict[str, str]:
    """Return what the best weights came to on the test clips, as JSON under `test`, if this is the time to know.

    It goes with the last epoch's report, since a scheduler's stop keeps what comes after that from running.

    Raises:
        FileNotFoundError: the best weights are gone.
    """
    if not task.reads_test or log.records[-1]["epoch"] < task.epochs:
        return {}
    best = files.load(BEST)
    if best is None:
        raise FileNotFoundError(
            f"{files.path(BEST)}: does not exist, so that there is nothing to try on the test clips"
        )
    learner.load_weights(best["model"])
    spec = DataSpec(**task.data)
    dataset = open_dataset(spec)

    def open_part() -> Part:
        return open_test_part(spec, dataset, front_end=data.front_end, workers=torch.get_num_threads())

    result = read_test_once(files, dataset, inputs=config.system.inputs, predict=learner.predict, open_part=open_part)
    return {"test": json.dumps(result)}


def _reset_process(task: TrialTask) -> torch.device:
    """Undo what an earlier trial of this process may have left; return the device to train on."""
    gc.collect()
    gc.freeze()  # what the process keeps, its modules above all, need not be scanned again for the next trial
    random.seed(task.seed)
    np.random.seed(task.seed % 2**32)
    torch.manual_seed(task.seed)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(task.threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        return torch.device("cuda")
    return torch.device("cpu")


@lru_cache(maxsize=1)
def _backbone(name: str, digest: str, device: str) -> Ast:
    backbone = load_backbone(name)
    found = backbone_digest(backbone)
    if found != digest:
        raise ValueError(f"backbone {name}: this node has weights {found[:12]}, the study began with {digest[:12]}")
    return backbone.to(device)


@lru_cache(maxsize=4)  # a study may compare front ends, and log-mel with VGGish
def _data(spec_json: str, digest: str, front_end: FrontEnd | None) -> StudyData:
    """Return the study's data, prepared on this node if it has not been; VGGish if there is no front end."""
    spec = DataSpec(**json.loads(spec_json))
    data = open_study_data(spec, open_dataset(spec), front_end=front_end, workers=torch.get_num_threads())
    if data.digest != digest:
        raise ValueError(f"data {spec.source}: this node has {data.digest[:12]}, the study began with {digest[:12]}")
    return data


def _check_untouched(backbone: Ast | None, versions: list[int]) -> None:
    """Refuse the results of a trial that wrote to the backbone, and load it anew for the next one.

    Raises:
        RuntimeError: a weight was written to, or holds a gradient.
    """
    if backbone is None:
        return
    if _versions(backbone) != versions or any(p.grad is not None for p in backbone.parameters()):
        _backbone.cache_clear()
        raise RuntimeError("backbone: the trial changed the frozen backbone; its results cannot be trusted")


def _versions(backbone: Ast | None) -> list[int]:
    """Return how often each tensor of the backbone has been written to, as torch counts it."""
    if backbone is None:
        return []
    return [tensor._version for tensor in (*backbone.parameters(), *backbone.buffers())]
