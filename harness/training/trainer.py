"""Training as a stream of epochs: no Ray, no MLflow, no print.

Every draw of an epoch depends on the seed and the epoch alone, or on generator states in the trainer's state. A
training that is stopped and restored therefore gives the same bits as one that never stopped.
"""

import copy
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.config.recipe import MeanTeacher as Teaching
from harness.config.trial import TrialConfig
from harness.data.batches import Batch, Split, StudyData, to_device
from harness.models.backbones import Backbone
from harness.models.systems import Reprogrammed
from harness.training.augmentation import build_augmentation
from harness.training.fused import Embed, Gradient, Pass, Training, autocast, run_alone
from harness.training.losses import binarised, consistency, masked_bce
from harness.training.metrics import Scores, score
from harness.training.optimisation import build_optimiser, learning_rate_factor, set_learning_rate

_EVALUATION_BATCH = 64

_EVALUATION_VALUES = _EVALUATION_BATCH * 256 * 128  # of the inputs of a batch: as many clips of ast-nano, 16 of base384


class DivergedError(RuntimeError):
    """A loss is no longer a number."""


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch. `epoch` counts from 1; losses are in nats; `seconds` hold training and validation.

    `train_loss` is over the annotated labels, so it compares with `validation_loss`.
    """

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    scores: Scores
    seconds: float


@dataclass(frozen=True)
class _Cut:
    """The frozen backbone's input and output in a step whose gradient goes through it."""

    spectrogram: Float[Tensor, "clip frame mel"]
    embedding: Float[Tensor, "clip dim"]


class Trainer:
    """Trains one model around a backbone, if the model needs one. The backbone belongs to the caller.

    `predictor` is the module that is scored and that predicts: the model or its teacher. `seconds_waited` counts the
    time that training has waited for clips.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: Backbone | None,
        *,
        data: StudyData,
        config: TrialConfig,
        epochs: int,
        seed: int,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        self.model, self.backbone, self.data = model, backbone, data
        self.config, self.epochs, self.seed, self.device = config, epochs, seed, device
        self.precision = precision
        self.epoch, self.seconds_waited = 0, 0.0
        self._optimiser = build_optimiser(model, config)
        self._augment = build_augmentation(config.augmentation, inputs=data.inputs)
        self.predictor, self.teacher = model, None
        if isinstance(config.teacher, Teaching):
            self.teacher = MeanTeacher(model, weight=config.teacher.weight, decay=config.teacher.decay, seed=seed)
            self.predictor = self.teacher.model if config.teacher.predicts == "teacher" else model
        self._steps_per_epoch = -(-len(data.train) // config.training.batch_size)

    def run(self) -> Iterator[EpochResult]:
        """Train and yield the remaining epochs.

        Raises:
            DivergedError: a training or validation loss is not finite.
        """
        return run_alone(self.train())

    def train(self) -> Training[EpochResult]:
        """Train as `run` does; the caller answers the passes through the frozen backbone."""
        if self.epoch == 0:
            torch.manual_seed(self.seed)
        while self.epoch < self.epochs:
            started = time.perf_counter()
            train_loss, lr = yield from self._train_epoch()
            validation_loss, scores = evaluate(
                self.predictor, self.backbone, self.data.validation, labels=self.data.labels, device=self.device
            )
            self.epoch += 1
            _check_finite(validation_loss, f"validation loss after epoch {self.epoch}")
            yield EpochResult(self.epoch, lr, train_loss, validation_loss, scores, time.perf_counter() - started)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: tensors, numbers and strings only."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "teacher": self.teacher.model.state_dict() if self.teacher else None,
            "optimiser": self._optimiser.state_dict(),
            "config": self.config.digest(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same configuration.

        Raises:
            ValueError: the state belongs to another configuration.
        """
        if state["config"] != self.config.digest():
            raise ValueError("checkpoint: it was written by another configuration than this trial's")
        self.model.load_state_dict(state["model"])
        if self.teacher:
            self.teacher.model.load_state_dict(state["teacher"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.epoch = state["epoch"]
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the predictor."""
        return dict(self.predictor.state_dict())

    def predict(self, part: Split) -> Float[np.ndarray, "clip label"]:
        """Return the labels' probabilities, see `predict`."""
        return predict(self.predictor, self.backbone, part, device=self.device)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of learned values of each part."""
        parts = self.model.named_children()
        return {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts}

    def _train_epoch(self) -> Generator[Pass, Any, tuple[float, float]]:
        """Return the mean loss over the epoch's steps and the last learning rate."""
        self.model.train()
        if self.teacher:
            self.teacher.model.train()
        losses = []
        with self.data.train.read_ahead(self._batches(), self.device) as batches:
            for index, batch in enumerate(batches):
                step = self.epoch * self._steps_per_epoch + index
                lr = self._set_learning_rate(step)
                losses.append((yield from self._step(to_device(batch, self.device), step)))
        self.seconds_waited += batches.seconds_waited
        mean = torch.stack(losses).mean().item()
        _check_finite(mean, f"training loss in epoch {self.epoch + 1}")
        return mean, lr

    def _step(self, batch: Batch, step: int) -> Generator[Pass, Any, Tensor]:
        """Train on one batch; return its loss on the annotated labels."""
        inputs, targets, observed = batch
        inputs = self._augment(inputs)
        if self.config.training.targets == "hard":
            targets = binarised(targets)
        logits, cut = yield from self._forward(inputs)
        supervised = loss = masked_bce(logits, targets, observed)
        if self.teacher:
            with self.teacher.forward_pass(step, self.device) as teacher, autocast(self.device, self.precision):
                taught = teacher(inputs, self.backbone).float()
            loss = supervised + self.teacher.weight * consistency(logits, taught)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if cut:
            assert cut.embedding.grad is not None, "every logit depends on the embedding"
            torch.autograd.backward(cut.spectrogram, (yield Gradient(cut.embedding.grad)))
        self._optimiser.step()
        if self.teacher:
            self.teacher.follow(self.model, step + 1)
        return supervised.detach()

    def _forward(self, inputs: Tensor) -> Generator[Pass, Any, tuple[Tensor, _Cut | None]]:
        """Return the logits of a training batch, and the cut if a gradient goes through the frozen backbone."""
        model, backbone = self.model, self.backbone
        if not isinstance(model, Reprogrammed) or backbone is None:
            with autocast(self.device, self.precision):
                return model(inputs, backbone).float(), None
        with autocast(self.device, self.precision):
            spectrogram = model.rewrite_for(backbone, inputs)
        embedding = yield Embed(backbone, spectrogram, self.precision)
        cut = _Cut(spectrogram, embedding.requires_grad_()) if spectrogram.requires_grad else None
        with autocast(self.device, self.precision):
            return model.mapper(embedding, backbone).float(), cut

    def _batches(self) -> Iterator[Int[np.ndarray, " batch"]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.data.train))
        size = self.config.training.batch_size
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _set_learning_rate(self, step: int) -> float:
        schedule = self.config.schedule
        factor = learning_rate_factor(
            schedule.kind, step=step, n_steps=self.epochs * self._steps_per_epoch, warmup=schedule.warmup
        )
        lr = self.config.optimiser.lr * factor
        set_learning_rate(self._optimiser, lr)
        return lr


class MeanTeacher:
    """A second model, the average of a student, with which the student learns to agree.

    Its parameters follow the student's; its BatchNorm statistics come from its own forward passes. Its dropout has a
    random stream of its own, so at weight 0 the student trains exactly as without a teacher.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; Gururani and Lerch,
    "Semi-supervised audio classification with partially labeled data", 2021. Both models are in training mode there,
    and dropout is the only perturbation.
    """

    def __init__(self, student: nn.Module, *, weight: float, decay: float, seed: int) -> None:
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.weight = weight
        self._decay, self._seed = decay, seed

    @contextmanager
    def forward_pass(self, step: int, device: torch.device) -> Iterator[nn.Module]:
        """Lend the teacher for its forward pass of a step, without gradient and with its own random stream."""
        devices = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(np.random.SeedSequence([self._seed, step]).generate_state(1, np.uint64)[0]))
            yield self.model

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        """Move the teacher's parameters towards the student's after optimiser step `step`, counted from 1.

        The teacher is the mean of its initial weights and of all students so far. From 1 / (1 - decay) steps on it is
        their moving average.
        """
        alpha = min(1 - 1 / (step + 1), self._decay)
        for mine, theirs in zip(self.model.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - alpha)


def evaluate(
    model: nn.Module, backbone: Backbone | None, part: Split, *, labels: tuple[str, ...], device: torch.device
) -> tuple[float, Scores]:
    """Return the mean loss over the observed labels and the metrics of a split, in evaluation mode and float32.

    Raises:
        DivergedError: the model's output is not finite.
    """
    logits = _logits(model, backbone, part, device=device)
    observed = torch.from_numpy(part.observed)
    loss = masked_bce(logits, binarised(torch.from_numpy(part.targets)), observed).item()
    return loss, score(logits.sigmoid().numpy(), part.targets, observed=part.observed, labels=labels)


def predict(
    model: nn.Module, backbone: Backbone | None, part: Split, *, device: torch.device
) -> Float[np.ndarray, "clip label"]:
    """Return the labels' probabilities for the clips of a split, in evaluation mode and float32.

    Raises:
        DivergedError: the model's output is not finite.
    """
    probabilities: Float[np.ndarray, "clip label"] = _logits(model, backbone, part, device=device).sigmoid().numpy()
    return probabilities


@torch.inference_mode()
def _logits(
    model: nn.Module, backbone: Backbone | None, part: Split, *, device: torch.device
) -> Float[Tensor, "clip label"]:
    """Return the model's logits for a split in evaluation mode, on the CPU."""
    model.eval()
    size = max(1, min(_EVALUATION_BATCH, _EVALUATION_VALUES // int(np.prod(part.features.shape[1:]))))
    clips = (np.arange(start, min(start + size, len(part))) for start in range(0, len(part), size))
    with part.read_ahead(clips, device) as batches:
        logits = [model(to_device(batch, device)[0], backbone).float() for batch in batches]
    stacked = torch.cat(logits).cpu()
    if not stacked.isfinite().all():
        raise DivergedError("the model's output is not finite")
    return stacked


def _check_finite(value: float, what: str) -> None:
    if not np.isfinite(value):
        raise DivergedError(f"{what} became {value}")
