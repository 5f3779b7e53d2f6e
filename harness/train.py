"""Training as a stream of epochs: no Ray, no MLflow, no print.

Every draw of an epoch depends on the seed and the epoch alone, or on generator states that the checkpoint holds, so
that a training that was stopped and restored goes on bit by bit as if it had not been.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from harness.config import TrialConfig
from harness.data.study_data import Part, StudyData
from harness.losses import binarised, masked_bce
from harness.metrics import Scores, score
from harness.models.ast import Backbone
from harness.models.reprogrammed import Reprogrammed
from harness.schedules import learning_rate_factor

_EVALUATION_BATCH = 64
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class DivergedError(RuntimeError):
    """A loss is no longer a number; going on would only hide it."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did. `epoch` counts from 1; losses are in nats; `seconds` hold training and validation."""

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    scores: Scores
    seconds: float


class Trainer:
    """Trains one model against a backbone that it does not own."""

    def __init__(
        self,
        model: Reprogrammed,
        backbone: Backbone,
        *,
        data: StudyData,
        config: TrialConfig,
        epochs: int,
        seed: int,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        if not any(p.requires_grad for p in model.learned()):
            raise ValueError("model: none of its parameters learns")
        self.model, self.backbone, self.data = model, backbone, data
        self.config, self.epochs, self.seed, self.device = config, epochs, seed, device
        self.precision = precision
        self.epoch = 0
        self._optimiser = torch.optim.Adam(
            model.learned(),
            lr=config.optimiser.lr,
            betas=(config.optimiser.beta1, config.optimiser.beta2),
            weight_decay=config.optimiser.weight_decay,
        )
        self._steps_per_epoch = -(-len(data.train) // config.training.batch_size)

    def run(self) -> Iterator[EpochResult]:
        """Yield the epochs that are left.

        Raises:
            DivergedError: a training or validation loss is not finite.
        """
        while self.epoch < self.epochs:
            started = time.perf_counter()
            train_loss, lr = self._train_epoch()
            validation_loss, scores = evaluate(
                self.model, self.backbone, self.data.validation, labels=self.data.labels, device=self.device
            )
            self.epoch += 1
            _check_finite(validation_loss, f"validation loss after epoch {self.epoch}")
            yield EpochResult(self.epoch, lr, train_loss, validation_loss, scores, time.perf_counter() - started)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: tensors, numbers and strings only."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "config": self.config.digest(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same configuration.

        Raises:
            ValueError: the state belongs to another configuration.
        """
        if state["config"] != self.config.digest():
            raise ValueError("checkpoint: it was written by another configuration than this trial's")
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.epoch = state["epoch"]
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)

    def _train_epoch(self) -> tuple[float, float]:
        """Return the mean loss over the epoch's steps and the last learning rate."""
        self.model.train()
        losses = []
        for index, clips in enumerate(self._batches()):
            step = self.epoch * self._steps_per_epoch + index
            lr = self._set_learning_rate(step)
            losses.append(self._step(clips))
        mean = torch.stack(losses).mean().item()
        _check_finite(mean, f"training loss in epoch {self.epoch + 1}")
        return mean, lr

    def _step(self, clips: Int[np.ndarray, " batch"]) -> Tensor:
        log_mel, targets, observed = self.data.train.batch(clips, self.device)
        if self.config.training.targets == "hard":
            targets = binarised(targets)
        with torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            logits = self.model(log_mel, self.backbone)
        loss = masked_bce(logits.float(), targets, observed)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return loss.detach()

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
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        return lr


@torch.inference_mode()
def evaluate(
    model: Reprogrammed, backbone: Backbone, part: Part, *, labels: tuple[str, ...], device: torch.device
) -> tuple[float, Scores]:
    """Return the mean loss over the observed labels and the metrics of a split, in evaluation mode and float32.

    Raises:
        DivergedError: the model's output is not finite.
    """
    model.eval()
    logits = [
        model(part.batch(np.arange(start, min(start + _EVALUATION_BATCH, len(part))), device)[0], backbone).float()
        for start in range(0, len(part), _EVALUATION_BATCH)
    ]
    stacked = torch.cat(logits).cpu()
    if not stacked.isfinite().all():
        raise DivergedError("validation: the model's output is not finite")
    observed = torch.from_numpy(part.observed)
    loss = masked_bce(stacked, binarised(torch.from_numpy(part.targets)), observed).item()
    return loss, score(stacked.sigmoid().numpy(), part.targets, observed=part.observed, labels=labels)


def _check_finite(value: float, what: str) -> None:
    if not np.isfinite(value):
        raise DivergedError(f"{what} became {value}")
