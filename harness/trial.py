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
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from harness.build import build_model
from harness.config import TrialConfig
from harness.data.frontend import FrontEnd
from harness.data.sources import open_dataset, open_study_data
from harness.data.study_data import StudyData
from harness.models.ast import Ast
from harness.models.checkpoints import backbone_digest, load_backbone
from harness.spec import DataSpec
from harness.train import EpochResult, Trainer
from harness.trial_artifacts import write_artifacts
from harness.trial_files import BEST, LAST, TrialFiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs to run one trial, as plain values that any node can read."""

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
        yield from _epochs(task, files)
    except Exception as error:
        logger.warning("trial %d failed: %s", task.number, error)
        with contextlib.suppress(OSError):  # the storage itself may be what failed
            files.write("error.txt", traceback.format_exc().encode())
        yield {"number": task.number, "failed": f"{type(error).__name__}: {error}"}


def _epochs(task: TrialTask, files: TrialFiles) -> Iterator[dict[str, Any]]:
    device = _reset_process(task)
    backbone = _backbone(task.backbone, task.backbone_digest, str(device))
    data = _data(json.dumps(task.data), task.data_digest, backbone.geometry.front_end)
    untouched = _versions(backbone)
    config = TrialConfig.from_paths(task.paths)
    model = build_model(config, backbone, data=data, seed=task.seed, device=device)
    trainer = Trainer(
        model,
        backbone,
        data=data,
        config=config,
        epochs=task.epochs,
        seed=task.seed,
        device=device,
        precision=task.precision,
    )
    log = _Log(task.number, model.parameter_counts())
    if (state := files.load(LAST)) is not None:
        trainer.restore(state["trainer"])
        log.records = state["records"]
        # the driver may not have heard of the last epoch before it, or this worker, went away
        yield log.report()
    for result in trainer.run():
        _check_untouched(backbone, untouched)
        is_best = log.add(result)
        if is_best:
            files.save(BEST, {"model": model.state_dict(), "paths": config.to_paths(), "epoch": result.epoch})
        if result.epoch == task.epochs:
            write_artifacts(files, model=model, data=data, records=log.records, device=device)
        # last, since a trial that finds this file takes the epoch and all that goes with it for done
        files.save(LAST, {"trainer": trainer.state(), "records": log.records})
        yield log.report()


class _Log:
    """The records of the epochs so far, as plain values."""

    def __init__(self, number: int, parameters: Mapping[str, int]) -> None:
        self.number, self.parameters = number, parameters
        self.records: list[dict[str, Any]] = []

    def add(self, result: EpochResult) -> bool:
        """Append an epoch; return whether its macro-F1 is the best so far."""
        best = max((record["macro_f1"] for record in self.records), default=-1.0)
        self.records.append(
            {
                "epoch": result.epoch,
                "lr": result.lr,
                "train_loss": result.train_loss,
                "validation_loss": result.validation_loss,
                "macro_f1": result.scores.macro_f1,
                "positive_f1": result.scores.positive_f1,
                "map": result.scores.mean_average_precision,
                "f1_by_label": dict(result.scores.f1_by_label),
                "seconds": result.seconds,
            }
        )
        return result.scores.macro_f1 > best

    def report(self) -> dict[str, Any]:
        """Return the last epoch for the driver, with the best one so far.

        `detail` is JSON: Tune flattens mappings on their way to a searcher.
        """
        last = self.records[-1]
        best = max(self.records, key=lambda record: record["macro_f1"])
        return {
            "number": self.number,
            "epoch": last["epoch"],
            "best_macro_f1": best["macro_f1"],
            "params": sum(self.parameters.values()),
            "seconds": sum(record["seconds"] for record in self.records),
            "detail": json.dumps({"last": last, "best": best, "parameters": dict(self.parameters)}),
        }


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


@lru_cache(maxsize=1)
def _data(spec_json: str, digest: str, front_end: FrontEnd) -> StudyData:
    """Return the study's data, prepared on this node if it has not been."""
    spec = DataSpec(**json.loads(spec_json))
    data = open_study_data(spec, open_dataset(spec), front_end=front_end)
    if data.digest != digest:
        raise ValueError(f"data {spec.source}: this node has {data.digest[:12]}, the study began with {digest[:12]}")
    return data


def _check_untouched(backbone: Ast, versions: list[int]) -> None:
    """Refuse the results of a trial that wrote to the backbone, and load it anew for the next one.

    Raises:
        RuntimeError: a weight was written to, or holds a gradient.
    """
    if _versions(backbone) != versions or any(p.grad is not None for p in backbone.parameters()):
        _backbone.cache_clear()
        raise RuntimeError("backbone: the trial changed the frozen backbone; its results cannot be trusted")


def _versions(backbone: Ast) -> list[int]:
    """Return how often each tensor of the backbone has been written to, as torch counts it."""
    return [tensor._version for tensor in (*backbone.parameters(), *backbone.buffers())]
