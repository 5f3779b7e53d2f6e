"""Writing the small files of a data set in OpenMIC-2018's layout."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from harness.data.openmic import CLASS_MAP, LABELS_CSV, METADATA_CSV

_MARKER = "STAND-IN.txt"


def write_tables(
    root: Path,
    labels: Sequence[str],
    keys: Sequence[str],
    *,
    targets: Float[np.ndarray, "clip label"],
    observed: Bool[np.ndarray, "clip label"],
    is_test: Sequence[bool],
    artists: Sequence[str],
) -> None:
    """Write the class map, the labels as CSV, the partitions and the metadata below `root`, which must exist."""
    (root / CLASS_MAP).write_text(json.dumps({label: index for index, label in enumerate(labels)}))
    (root / "partitions").mkdir()
    for name, wanted in (("train", False), ("test", True)):
        lines = [f"{key}\n" for key, is_one in zip(keys, is_test, strict=True) if is_one == wanted]
        (root / "partitions" / f"split01_{name}.csv").write_text("".join(lines))
    _write_csv(
        root / LABELS_CSV,
        ("sample_key", "instrument", "relevance", "num_responses"),
        ((keys[row], labels[label], repr(float(targets[row, label])), 3) for row, label in np.argwhere(observed)),
    )
    _write_csv(
        root / METADATA_CSV,
        ("track_id", "artist_name", "track_title", "sample_key", "start_time"),
        (
            (int(key[:6]), artist, f"Piece {key[:6]}", key, int(key[7:]) / 1000)
            for key, artist in zip(keys, artists, strict=True)
        ),
    )


def mark_as_stand_in(root: Path) -> None:
    """Leave a file that tells that the data set is none of real music, whatever its directory comes to be called."""
    (root / _MARKER).write_text(
        "A stand-in of OpenMIC-2018: its clips are synthetic, its annotations drawn at random. What is measured on it "
        "is not comparable with anything published. Leave this file here: it keeps reports from comparing them.\n"
    )


def is_stand_in(root: Path) -> bool:
    """Tell whether the data set only has the shape of OpenMIC-2018."""
    return (root / _MARKER).exists()


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
