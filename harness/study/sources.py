"""From the name of a study's data to clips with features."""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import assert_never

import numpy as np
from jaxtyping import Int

from harness.common.files import cache_dir
from harness.common.progress import Progress, quiet
from harness.config.study import DataSpec
from harness.config.trial import TrialConfig
from harness.data.batches import Features, StudyData, log_mel_features, study_data, vggish_features
from harness.data.dataset import ClipDataset
from harness.data.formats import read_dataset
from harness.data.skipped import report_skipped
from harness.data.splits import study_split
from harness.features.extract import Extracted, extract
from harness.features.inputs import Input, LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.synthetic.demo import demo_digest, demo_truth, ensure_demo

DEMO, OPENMIC = "demo", "openmic"


def open_dataset(spec: DataSpec, *, workers: int = 1, progress: Progress = quiet) -> ClipDataset:
    """Return the named data set's labels and partition, rendering the demo set on first use.

    Raises:
        FileNotFoundError: there is no such directory, or it lacks a file of the layout.
        ValueError: a file of the layout breaks its rules.
    """
    if spec.source == DEMO:
        size = {} if spec.demo_clips is None else {"n_clips": spec.demo_clips}
        return read_dataset(ensure_demo(cache_dir(), seed=spec.demo_seed, workers=workers, progress=progress, **size))
    return read_dataset(_directory(spec.source))


def open_study_data(
    spec: DataSpec, dataset: ClipDataset, *, inputs: Input, workers: int = 1, progress: Progress = quiet
) -> StudyData:
    """Return the training and validation clips with the inputs of a system."""
    rows = study_rows(spec, dataset)
    features = features_of(inputs, dataset, spec=spec, rows=rows, workers=workers, progress=progress)
    data = study_data(dataset, features, study_split(spec, dataset))
    return _revealed(data, dataset) if spec.reveals_all else data


def study_rows(spec: DataSpec, dataset: ClipDataset) -> Int[np.ndarray, " row"] | None:
    """Return the rows whose features a study needs: None, for all, unless it uses a fraction of the clips."""
    if spec.fraction == 1:
        return None
    split = study_split(spec, dataset)
    return np.concatenate([split.train, split.validation])


def inputs_of(config: TrialConfig, front_end: FrontEnd) -> Input:
    """Return the inputs of a configuration, given the front end of the backbone."""
    if config.system.inputs == Vggish.name:
        return Vggish()
    return LogMel(replace(front_end, **asdict(config.front_end)))


def features_of(
    inputs: Input,
    dataset: ClipDataset,
    *,
    spec: DataSpec,
    rows: Int[np.ndarray, " row"] | None = None,
    workers: int = 1,
    progress: Progress = quiet,
) -> Features:
    """Return the inputs of some clips (None: of all), extracted on first use.

    The digest of the demo set, which every machine renders for itself, comes from the rendered samples. That of any
    other data set comes from its audio files, or from its VGGish array.

    Raises:
        OSError: audio files cannot be opened, or the cache cannot be written.
        ValueError: a clip cannot be read and `skips_corrupt` is False, or the data set has no VGGish.
    """
    sound_digest = rendered_digest(spec, dataset)
    match inputs:
        case LogMel(front_end):
            extracted = extract_clips(spec, dataset, front_end, rows=rows, workers=workers, progress=progress)
            return log_mel_features(dataset, extracted, front_end, rows=rows, sound_digest=sound_digest)
        case Vggish():
            return vggish_features(dataset, rows=rows, sound_digest=sound_digest)
        case _:
            assert_never(inputs)


def extract_clips(
    spec: DataSpec,
    dataset: ClipDataset,
    front_end: FrontEnd,
    *,
    rows: Int[np.ndarray, " row"] | None,
    workers: int,
    progress: Progress,
) -> Extracted:
    """Fill the cache with the log-mel of some clips (None: of all), and report the clips that are skipped."""
    requested = range(len(dataset.keys)) if rows is None else set(rows.tolist())
    paths = [path if row in requested else None for row, path in enumerate(dataset.paths)]
    extracted = extract(paths, front_end, cache=cache_dir(), workers=workers, progress=progress)
    report_skipped(dataset, extracted, cache=cache_dir(), skip_corrupt=spec.skips_corrupt)
    return extracted


def rendered_digest(spec: DataSpec, dataset: ClipDataset) -> str | None:
    """Return the digest of the demo set's samples, None for other data."""
    return demo_digest(dataset.root) if spec.source == DEMO else None


def _revealed(data: StudyData, dataset: ClipDataset) -> StudyData:
    """Return the demo's data with more labels of its training clips observed.

    Every instrument that plays is observed. The number of negatives keeps each label's share of positives: one label in
    eight is positive, but 44 % of the annotations that validation and test score. With all negatives, a model would
    lean towards no.
    """
    plays = demo_truth(dataset)[data.train.rows]
    annotated_no = data.train.observed & ~plays
    share = annotated_no.sum(axis=0) / np.maximum((data.train.observed & plays).sum(axis=0), 1)
    n_wanted = np.round(plays.sum(axis=0) * share).astype(np.int64)
    # the annotated ones come first, then the others in a random order
    order = np.random.default_rng(0).random(plays.shape) - annotated_no + 2.0 * plays
    rank = order.argsort(axis=0).argsort(axis=0)
    observed = plays | annotated_no | (~plays & (rank < n_wanted))
    train = replace(data.train, targets=plays.astype(np.float32), observed=observed)
    digest = hashlib.sha256(data.digest.encode() + plays.tobytes() + observed.tobytes()).hexdigest()
    return replace(data, train=train, digest=digest)


def _directory(source: str) -> Path:
    if source == OPENMIC:
        place = Path(os.environ.get("OPENMIC_2018", cache_dir() / "openmic-2018"))
        if not place.is_dir():
            raise FileNotFoundError(
                f"data=openmic: {place} does not exist; get it by `python -m harness.data fetch openmic --to DIR` and "
                "give DIR/openmic-2018 as --data or in the environment variable OPENMIC_2018"
            )
        return place
    place = Path(source).expanduser()
    if not place.is_dir():
        raise FileNotFoundError(f"data={source!r}: must be demo, openmic or a directory; {place} is no directory")
    return place
