"""From Ray Tune to the tracker: what Tune reports while a study runs."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from ray import tune

from harness.tracker import Tracker

logger = logging.getLogger(__name__)


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Log what goes wrong in tracking: an exception in a callback would end the study."""

    @wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logger.exception("tracking: %s failed; the study goes on", method.__name__)

    return guarded


class TrackingCallback(tune.Callback):
    """Tells the tracker what Tune reports."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._has_news = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune's snapshots are never read."""
        return {}

    @_harmless
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Open the trial's run."""
        self._tracker.start(trial.config["number"])

    @_harmless
    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Write the epoch down."""
        if "best_macro_f1" in result:
            self._tracker.epoch(result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Note that a trial ended; the storage will say how."""
        self._has_news = True

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Note that a trial's worker was lost; the storage will say whether for good."""
        self._has_news = True

    @_harmless
    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """End the runs of what has ended since the last step."""
        if self._has_news:
            self._has_news = False
            self._tracker.finish_ended()
