"""One trial without Ray: its files, its records and its learner, an epoch at a time.

A process may run several sessions, one after another or in turns. It keeps the frozen backbone and the memory-mapped
data for all of them in this module's caches. Everything else belongs to a session, its random state included.
"""

import contextlib
import errno
import gc
import logging
import random
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.config.study import DataSpec, StudySpec
from harness.config.trial import TrialConfig
from harness.data.batches import StudyData
from harness.features.inputs import Input, LogMel, Vggish
from harness.models.backbones import Backbone, backbone_digest, load_backbone
from harness.models.systems import Reprogrammed
from harness.study.files import BEST, FIGURES, LAST, TrialFiles
from harness.study.heldout import read_test_once
from harness.study.records import EpochRecord, TrialFailure, TrialReport, best_of
from harness.study.sources import inputs_of, open_dataset, open_study_data
from harness.training.checkpoint import CheckpointHeader, load_checkpoint, save_checkpoint
from harness.training.fused import Group, Pass, Training, mapped
from harness.training.learner import Learner, make_learner
from harness.training.metrics import METRICS
from harness.training.trainer import EpochResult, Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTask:
    """One trial as plain values that any node can read. `number` is that of the Optuna trial, its only identity.

    `paths` is its whole configuration. `study` has its epochs, precision, data and backbone, with their digests.
    `shared` is the root of the study's files. With `reads_test`, the trial ends by scoring its best weights on the test
    clips, once.
    """

    number: int
    paths: Mapping[str, Any]
    study: StudySpec
    seed: int
    shared: str
    threads: int
    reads_test: bool = False


Report = TrialReport | TrialFailure


class Session:
    """Runs one trial, alone or as a member of a `Group`.

    Sessions of one process may advance in any order. Each keeps its own random state.
    """

    def __init__(self, task: TrialTask) -> None:
        self.task = task
        self.files = TrialFiles(task.shared, task.number)
        self._training = self._run()
        self._random_state: tuple[Any, ...] | None = None

    def advance(self, answer: Tensor | Exception | None = None) -> Pass | Report | None:
        """Train to the next pass through the backbone or the next report; return None once the trial has ended.

        A trial that was cut off first reports its last epoch again: its driver may not have received that report. A
        trial that cannot go on returns a failure and ends. No exception leaves this method, since Ray would take it for
        a lost worker and run the trial again.
        """
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(self.task.threads)
        if self._random_state is None:
            _clean_up()
            _seed(self.task.seed)
        else:
            _set_random_state(self._random_state)
        try:
            if isinstance(answer, Exception):
                return self._training.throw(answer)
            return self._training.send(answer)
        except StopIteration:
            return None
        finally:
            self._random_state = _get_random_state()

    def __iter__(self) -> Iterator[Report]:
        """Run the trial alone; yield its reports."""
        group: Group[Report] = Group([self])
        return (report for _, report in group)

    def _run(self) -> Training[Report]:
        try:
            yield from self._epochs()
        except Exception as error:
            logger.warning("trial %d failed: %s", self.task.number, error)
            with contextlib.suppress(OSError):  # the storage itself may be the cause
                self.files.write("error.txt", traceback.format_exc().encode())
            is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
            yield TrialFailure(self.task.number, f"{type(error).__name__}: {error}", stops_study=is_full)

    def _epochs(self) -> Training[TrialReport]:
        task, files = self.task, self.files
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = TrialConfig.from_paths(task.paths)
        backbone, inputs = _backbone_and_inputs(task, config, device)
        data = _data(task.study.data, _data_digest(task.study, inputs), inputs)
        untouched = _versions(backbone)
        learner = make_learner(
            config,
            backbone=backbone,
            data=data,
            epochs=task.study.epochs,
            seed=task.seed,
            device=device,
            precision=task.study.precision,
        )
        records: list[EpochRecord] = []

        def report() -> TrialReport:
            ended = records[-1].epoch >= task.study.epochs
            return TrialReport(
                number=task.number,
                last=records[-1],
                best=best_of(records),
                parameters=dict(learner.parameter_counts()),
                seconds=sum(record.seconds for record in records),
                # with the last epoch's report, since a scheduler's stop prevents any later step
                test=self._test_result(backbone, data, device) if task.reads_test and ended else None,
            )

        def keep(result: EpochResult) -> TrialReport:
            _check_untouched(backbone, untouched)
            records.append(EpochRecord.of(result))
            if best_of(records) is records[-1]:
                header = checkpoint_header(task, config, data, records[-1])
                files.write(BEST, save_checkpoint(header, learner.weights()))
            if result.epoch == task.study.epochs:  # a forest has one epoch, which counts as the last
                _draw_figures(files, learner=learner, data=data, records=records, device=device)
            # last, since this file marks the epoch and all of its other files as complete
            files.save(LAST, {"trainer": learner.state(), "records": [asdict(record) for record in records]})
            return report()

        if (state := files.load(LAST)) is not None:
            learner.restore(state["trainer"])
            records = [EpochRecord(**record) for record in state["records"]]
            yield report()
        yield from mapped(learner.train(), keep)

    def _test_result(self, backbone: Backbone | None, data: StudyData, device: torch.device) -> dict[str, Any]:
        """Return the figures of the best weights on the test clips.

        Raises:
            FileNotFoundError: the best weights are gone.
        """
        content = self.files.read(BEST)
        if content is None:
            raise FileNotFoundError(f"{self.files.path(BEST)}: does not exist, so the test clips cannot be scored")
        best = load_checkpoint(content, backbone=backbone, device=device)
        spec, threads = self.task.study.data, self.task.threads
        return read_test_once(self.files, spec, inputs=data.inputs, predict=best.predict, workers=threads)


def checkpoint_header(task: TrialTask, config: TrialConfig, data: StudyData, record: EpochRecord) -> CheckpointHeader:
    """Return the header of a trial's checkpoint at an epoch."""
    study, origin = task.study, task.study.provenance
    front_end, backbone = None, {}
    if isinstance(data.inputs, LogMel):
        front_end = asdict(data.inputs.front_end)
        backbone = {**_named(origin, "backbone_"), "name": study.backbone}
    return CheckpointHeader(
        config=config.to_paths(),
        labels=data.labels,
        input=data.inputs.name,
        front_end=front_end,
        mean=data.mean,
        std=data.std,
        backbone=backbone,
        data={
            **asdict(study.data),
            "digest": _data_digest(study, data.inputs),
            "data_digest": origin.get("data_digest", ""),
        },
        epoch=record.epoch,
        figures=record.figures,
        f1_by_label=record.f1_by_label,
        seed=task.seed,
        commit=origin.get("git_commit", "unknown"),
        versions=_named(origin, "version/"),
    )


def _named(provenance: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return the entries with this prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in provenance.items() if name.startswith(prefix)}


def _data_digest(study: StudySpec, inputs: Input) -> str:
    """Return the digest of the features that a system takes."""
    return study.provenance[f"{inputs.name}_digest"]


def _draw_figures(
    files: TrialFiles, *, learner: Learner, data: StudyData, records: Sequence[EpochRecord], device: torch.device
) -> None:
    """Draw F1 by label, the learning curves and the learned change of the first validation clip."""
    from tracking import figures  # noqa: PLC0415  25 MB that training can do without

    best = best_of(records)
    title = f"trial {files.number}"
    with tempfile.TemporaryDirectory() as directory:
        f1, curves, change = (Path(directory) / name for name in FIGURES)
        figures.f1_by_label(f1, best.f1_by_label, title=f"{title}, epoch {best.epoch}: F1 on validation")
        figures.learning_curves(
            curves,
            losses={"train": [r.train_loss for r in records], "validation": [r.validation_loss for r in records]},
            scores={m.title: [r.figures[n] for r in records] for n, m in METRICS.items() if n in best.figures},
            title=title,
        )
        if isinstance(learner, Trainer) and isinstance(learner.model, Reprogrammed) and isinstance(data.inputs, LogMel):
            before, after = _example(learner.model, data, device)
            figures.input_change(
                change, before, after, hop_ms=data.inputs.front_end.hop_ms, title=f"{title}: the backbone's input"
            )
        for figure in (f1, curves, change):
            if figure.exists():
                files.write(figure.name, figure.read_bytes())


@torch.inference_mode()
def _example(model: Reprogrammed, data: StudyData, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip's normalised log-mel before and after the reprogrammer."""
    model.eval()
    log_mel, _, _ = data.validation.batch(np.array([0]), device)
    normalised = model.normalisation(log_mel)
    rewritten = model.reprogrammer(normalised)
    return normalised[0].cpu().numpy(), rewritten[0].cpu().numpy()


def _clean_up() -> None:
    """Free the memory of earlier sessions of this process."""
    gc.collect()
    gc.freeze()  # modules and caches stay for good; scanning them for each trial would take long
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _get_random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)


def _backbone_and_inputs(task: TrialTask, config: TrialConfig, device: torch.device) -> tuple[Backbone | None, Input]:
    """Return the inputs of a system, and the backbone if the system takes log-mel."""
    if config.system.inputs == Vggish.name:
        return None, Vggish()
    study = task.study
    backbone = _backbone(study.backbone, study.provenance["backbone_digest"], str(device))
    return backbone, inputs_of(config, backbone.front_end)


@lru_cache(maxsize=1)
def _backbone(name: str, digest: str, device: str) -> Backbone:
    backbone = load_backbone(name)
    found = backbone_digest(backbone)
    if found != digest:
        raise ValueError(f"backbone {name}: this node has weights {found[:12]}, the study began with {digest[:12]}")
    return backbone.to(device)


@lru_cache(maxsize=4)  # a study may compare front ends, and log-mel with VGGish
def _data(spec: DataSpec, digest: str, inputs: Input) -> StudyData:
    """Return the study's data, extracted on this node if necessary."""
    data = open_study_data(spec, open_dataset(spec), inputs=inputs, workers=torch.get_num_threads())
    if data.digest != digest:
        raise ValueError(f"data {spec.source}: this node has {data.digest[:12]}, the study began with {digest[:12]}")
    return data


def _check_untouched(backbone: Backbone | None, versions: list[int]) -> None:
    """Refuse the results of a trial that changed the backbone; the next trial loads the backbone again.

    Raises:
        RuntimeError: a weight was written to, or holds a gradient.
    """
    if backbone is None:
        return
    if _versions(backbone) != versions or any(p.grad is not None for p in backbone.parameters()):
        _backbone.cache_clear()
        raise RuntimeError("backbone: the trial changed the frozen backbone; its results cannot be trusted")


def _versions(backbone: Backbone | None) -> list[int]:
    """Return torch's count of writes to each tensor of the backbone."""
    tensors = () if backbone is None else (*backbone.parameters(), *backbone.buffers())
    return [tensor._version for tensor in tensors]
