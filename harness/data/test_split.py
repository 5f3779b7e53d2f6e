"""The official test clips, behind a door of their own: what selects, tunes or trains does not import this module."""

from harness.data.frontend import FrontEnd
from harness.data.openmic import ClipDataset
from harness.data.sources import open_features
from harness.data.study_data import Part, select_part
from harness.spec import DataSpec


def open_test_part(spec: DataSpec, dataset: ClipDataset, *, front_end: FrontEnd | None, workers: int = 1) -> Part:
    """Return all test clips with their log-mel, or with their VGGish if `front_end` is None.

    Which clips are left out is decided as for the other splits; `reveals_all` reveals nothing here.

    Raises:
        ValueError: a clip cannot be read and `skips_corrupt` is False, the data set has no VGGish, or no clip is
            annotated for some label.
    """
    features = open_features(spec, dataset, front_end=front_end, rows=dataset.test, workers=workers)
    return select_part(dataset, features, dataset.test, name="test")
