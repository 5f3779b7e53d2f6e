"""Reading the test split: once for a finished trial, after its last epoch, and never without a trace.

Each reading is recorded before it happens. A worker that is killed in between leaves a reading without a result, and
the next result says that it is the second.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from harness.config.study import DataSpec
from harness.data.batches import Split, select_split
from harness.data.dataset import ClipDataset
from harness.features.inputs import Input
from harness.study.files import TrialFiles
from harness.study.sources import features_of, open_dataset
from harness.training.metrics import Scores, majority_floor, one_sided_labels, score

RESULT, READS = "test.json", "test_reads.json"


Predict = Callable[[Split], Float[np.ndarray, "clip label"]]


def read_test_once(
    files: TrialFiles, spec: DataSpec, *, inputs: Input, predict: Predict, workers: int = 1
) -> dict[str, Any]:
    """Return a trial's figures on the test split; compute them only if none are stored.

    The figures are those of `harness.training.metrics`. `floor` holds those of always giving each label's more
    frequent answer in the data set's whole train split. `clips` is a digest of the clips in use; `log_mel_digest` or
    `vggish_digest` is one of their labels and features. `n_left_out` counts the annotated test clips that could not be
    read; `one_sided` names the labels whose annotated clips all have the same answer; `reads` counts the readings and
    `read_at` is the time of the last one.

    Raises:
        ValueError: a prediction is not finite.
    """
    stored = files.read(RESULT)
    if stored is not None:
        found: dict[str, Any] = json.loads(stored)
        return found
    read_at = datetime.now(UTC).isoformat(timespec="seconds")
    readings = [*readings_of(files), read_at]
    files.write(READS, json.dumps(readings).encode())
    dataset = open_dataset(spec)
    split = open_test_split(spec, dataset, inputs=inputs, workers=workers)
    scores = score(predict(split), split.targets, observed=split.observed, labels=dataset.labels)
    floor = floor_on_test(dataset, split.targets, observed=split.observed)
    result = {
        **scores.to_record(),
        "floor": floor.to_record(),
        "n_clips": len(split),
        "n_left_out": int(dataset.observed[dataset.test].any(axis=1).sum()) - len(split),
        "clips": hashlib.sha256(split.rows.astype("<i8").tobytes()).hexdigest(),
        f"{inputs.name}_digest": split.digest,
        "one_sided": list(one_sided_labels(split.targets, split.observed, dataset.labels)),
        "read_at": read_at,
        "reads": len(readings),
    }
    files.write(RESULT, json.dumps(result).encode())
    return result


def readings_of(files: TrialFiles) -> list[str]:
    """Return the times at which a trial was about to read the test split."""
    content = files.read(READS)
    times: list[str] = [] if content is None else json.loads(content)
    return times


def floor_on_test(
    dataset: ClipDataset, targets: Float[np.ndarray, "clip label"], *, observed: Bool[np.ndarray, "clip label"]
) -> Scores:
    """Return the figures, on these test clips, of each label's more frequent answer in the whole train split."""
    train = dataset.train
    return majority_floor(
        dataset.targets[train],
        targets,
        train_observed=dataset.observed[train],
        observed=observed,
        labels=dataset.labels,
    )


def open_test_split(spec: DataSpec, dataset: ClipDataset, *, inputs: Input, workers: int = 1) -> Split:
    """Return all test clips with the inputs of a system.

    Clips are left out by the same rules as in the other splits; `reveals_all` reveals nothing here.

    Raises:
        ValueError: a clip cannot be read and `skips_corrupt` is False, the data set has no VGGish, or no clip is
            annotated for some label.
    """
    features = features_of(inputs, dataset, spec=spec, rows=dataset.test, workers=workers)
    return select_split(dataset, features, dataset.test, name="test")
