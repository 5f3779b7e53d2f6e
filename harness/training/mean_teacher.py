"""Mean Teacher: a second model that averages the first one, with which the first learns to agree.

Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; Gururani and Lerch,
"Semi-supervised audio classification with partially labeled data", 2021. Both models are in training mode there, and
dropout is the only perturbation.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


class MeanTeacher:
    """The teacher of one student.

    Its parameters follow the student's; its BatchNorm statistics come from its own forward passes. Its dropout has a
    random stream of its own, so at weight 0 the student trains exactly as without a teacher.
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
