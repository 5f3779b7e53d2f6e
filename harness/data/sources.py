"""From what a study names as its data to clips with features."""

import os
from pathlib import Path

from harness.data.demo import demo_digest, ensure_demo
from harness.data.frontend import FrontEnd
from harness.data.openmic import ClipDataset, read_dataset
from harness.data.progress import Progress, quiet
from harness.data.splits import split_train
from harness.data.store import prepare_features
from harness.data.study_data import StudyData, study_data
from harness.paths import cache_dir
from harness.spec import DataSpec

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
    spec: DataSpec, dataset: ClipDataset, *, front_end: FrontEnd, workers: int = 1, progress: Progress = quiet
) -> StudyData:
    """Return the training and validation clips with their features, which are computed on first use.

    The demo set, which every machine renders for itself, is known by the digest of what was rendered; any other
    data set by its audio files.

    Raises:
        ValueError: the split does not suit the data set, or a clip cannot be read and `skips_corrupt` is False.
    """
    split = split_train(dataset, kind=spec.split, fraction=spec.validation_fraction, seed=spec.split_seed)
    store = prepare_features(
        dataset,
        front_end,
        cache=cache_dir(),
        workers=workers,
        skip_corrupt=spec.skips_corrupt,
        progress=progress,
    )
    sound_digest = demo_digest(dataset.root) if spec.source == DEMO else store.audio_digest
    return study_data(dataset, store, split, sound_digest=sound_digest)


def _directory(source: str) -> Path:
    if source == OPENMIC:
        place = Path(os.environ.get("OPENMIC_2018", cache_dir() / "openmic-2018"))
        if not place.is_dir():
            raise FileNotFoundError(
                f"data=openmic: {place} does not exist; unpack openmic-2018-v1.0.0.tgz (Zenodo record 1432913) and "
                "give its directory as --data DIR or in the environment variable OPENMIC_2018"
            )
        return place
    place = Path(source).expanduser()
    if not place.is_dir():
        raise FileNotFoundError(f"data={source!r}: must be demo, openmic or a directory; {place} is no directory")
    return place
