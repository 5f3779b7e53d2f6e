"""What a trial remembers of its epochs and tells the driver."""

import json
from collections.abc import Mapping
from typing import Any

from harness.training.trainer import EpochResult


class TrialLog:
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
                **result.scores.to_record(),
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
