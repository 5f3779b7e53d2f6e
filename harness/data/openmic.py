"""OpenMIC-2018's layout on disk, which the real data set, the demo and many users' own data sets have.

    ROOT/class-map.json                           {"accordion": 0, ...}
    ROOT/openmic-2018.npz                         sample_key, Y_true, Y_mask; X (VGGish) is optional. Or else:
    ROOT/openmic-2018-aggregated-labels.csv       sample_key, instrument, relevance
    ROOT/openmic-2018-metadata.csv                sample_key, artist_name (optional)
    ROOT/partitions/split01_{train,test}.csv      one key a line
    ROOT/audio/000/000046_3840.ogg                the folder is the key's first three characters

Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018; the layout of openmic-2018-v1.0.0.tgz.
"""

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from os.path import lexists
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from harness.common.text import summarise
from harness.data.dataset import ClipDataset, LabelTable, Problems, make_dataset, normalised
from harness.data.npz import member_names, read_blocks, read_shape
from harness.data.tables import (
    read_artists,
    read_class_map,
    read_label_csv,
    read_label_npz,
    read_npz_keys,
    read_partition,
)

NPZ = "openmic-2018.npz"
LABELS_CSV = "openmic-2018-aggregated-labels.csv"
METADATA_CSV = "openmic-2018-metadata.csv"
CLASS_MAP = "class-map.json"
PARTITIONS = ("partitions/split01_train.csv", "partitions/split01_test.csv")
CORRUPTED_TRACKS = frozenset(
    "071826 071827 087435 095253 095259 095263 102144 113025 113604 138485".split()  # noqa: SIM905
)
"""Tracks of the Free Music Archive that are known to be damaged: the first six characters of their clips' keys."""
_VGGISH_SHAPE = (10, 128)


def is_openmic(root: Path) -> bool:
    """Return whether a directory has any table of the layout."""
    return any(lexists(root / name) for name in (CLASS_MAP, NPZ, LABELS_CSV, METADATA_CSV, *PARTITIONS))


def read_dataset(root: Path, problems: Problems = Problems(raises=True)) -> ClipDataset:  # noqa: B008
    """Read everything but the audio, and check that each clip has an audio file.

    Raises:
        OSError: a file of the layout is missing or cannot be opened.
        ValueError: a file's content breaks the layout's rules; the message names file and row or key.
    """
    root = root.resolve()
    labels = problems.attempt(root / CLASS_MAP, lambda: read_class_map(root / CLASS_MAP), ())
    table = _read_labels(root, labels, problems)
    train, test = (read_partition(root / name, table.keys, problems) for name in PARTITIONS)
    metadata = root / METADATA_CSV
    return make_dataset(
        root,
        labels,
        table,
        paths=_find_audio(root / "audio", table.keys, problems),
        train=train,
        test=test,
        artists=read_artists(metadata, table.keys, problems) if lexists(metadata) else None,
        vggish=table.source if table.source.name == NPZ and _has_vggish(table.source, problems) else None,
        problems=problems,
    )


def audio_name(key: str) -> str:
    """Return a clip's place below `audio/`."""
    return f"{key[:3]}/{key}.ogg"


def read_vggish(dataset: ClipDataset) -> Float[np.ndarray, "clip second feature"]:
    """Return the VGGish features, (clip, 10, 128) in 0 to 255, as float32 in the order of `dataset.keys`.

    Raises:
        ValueError: the data set has none, or an array that does not fit its keys or that range.
    """
    row_of = {key: row for row, key in enumerate(dataset.keys)}
    rows = [row_of[key] for key in read_npz_keys(_vggish_file(dataset))]
    features = np.empty((len(dataset.keys), *_VGGISH_SHAPE), dtype=np.float32)
    start = 0
    for block in vggish_blocks(dataset):
        features[rows[start : start + len(block)]] = block
        start += len(block)
    return features


def vggish_blocks(dataset: ClipDataset) -> Iterator[np.ndarray]:
    """Yield the VGGish features in the order on disk, some hundred clips at a time, to bound the memory.

    Raises:
        ValueError: as `read_vggish`, perhaps after some of the clips.
    """
    path = _vggish_file(dataset)
    expected = (len(dataset.keys), *_VGGISH_SHAPE)
    if (shape := read_shape(path, "X")) != expected:
        raise ValueError(f"{path}: X has shape {shape}; the keys need {expected}")
    for block in read_blocks(path, "X"):
        if block.dtype.kind not in "fiu" or not ((block >= 0) & (block <= 255)).all():
            raise ValueError(f"{path}: X must hold numbers from 0 to 255; some are outside, or no numbers")
        yield block


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
    for name, of_test in zip(PARTITIONS, (False, True), strict=True):
        lines = [f"{key}\n" for key, is_one in zip(keys, is_test, strict=True) if is_one == of_test]
        (root / name).write_text("".join(lines))
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


def _read_labels(root: Path, labels: Sequence[str], problems: Problems) -> LabelTable:
    if lexists(root / NPZ):
        return read_label_npz(root / NPZ, labels, problems)
    if not lexists(root / LABELS_CSV):
        problems.add(root, f"has neither {NPZ} nor {LABELS_CSV}; one of them must hold the labels")
        return LabelTable(root, (), np.zeros((0, len(labels))), np.zeros((0, len(labels)), np.bool_))
    return read_label_csv(root / LABELS_CSV, labels, problems)


def _find_audio(folder: Path, keys: Sequence[str], problems: Problems) -> list[Path]:
    """Return each key's audio file, by listing each folder once; names may be in either of Unicode's normal forms."""
    subfolders = [subfolder for subfolder in folder.iterdir() if subfolder.is_dir()] if folder.is_dir() else []
    there = {normalised(f"{place.name}/{file.name}"): file for place in subfolders for file in place.iterdir()}
    found = [there.get(audio_name(key)) or there.get(_decomposed_audio_name(key)) for key in keys]
    if problems.raises and (missing := [audio_name(key) for key, path in zip(keys, found, strict=True) if not path]):
        # a check looks at every file itself
        raise FileNotFoundError(f"{folder}: {len(missing)} of {len(keys)} clips are missing: {summarise(missing)}")
    return [path or folder / audio_name(key) for key, path in zip(keys, found, strict=True)]


def _decomposed_audio_name(key: str) -> str:
    """Return the place of a clip that a program named by the NFD of its key, whose first characters are others."""
    return normalised(audio_name(unicodedata.normalize("NFD", key)))


def _has_vggish(path: Path, problems: Problems) -> bool:
    return "X" in problems.attempt(path, lambda: member_names(path), set())


def _vggish_file(dataset: ClipDataset) -> Path:
    if dataset.vggish is None:
        raise ValueError(
            f"{dataset.root}: no array 'X' in a file {NPZ}, so there are no VGGish features; choose systems with "
            "log-mel input, or add the array"
        )
    return dataset.vggish


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
