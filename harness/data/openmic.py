"""Reading a data set in OpenMIC-2018's own disk layout: the real one, the demo, or one of the reader's own.

    ROOT/class-map.json                           {"accordion": 0, ...}
    ROOT/openmic-2018.npz                         sample_key, Y_true, Y_mask; X (VGGish) is optional. Or else:
    ROOT/openmic-2018-aggregated-labels.csv       sample_key, instrument, relevance
    ROOT/openmic-2018-metadata.csv                sample_key, artist_name (optional)
    ROOT/partitions/split01_{train,test}.csv      one key a line
    ROOT/audio/000/000046_3840.ogg                the folder is the key's first three characters

Conventions: row i of every array is `keys[i]`; keys are sorted. A target is the probability that the
instrument plays, positive from 0.5; where `observed` is False nobody was asked, and the target says nothing.

Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018; the layout of openmic-2018-v1.0.0.tgz.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.common.text import few
from harness.data.npz import member_names, read_blocks, read_shape, read_strings
from harness.data.tables import (
    LabelTable,
    key_order,
    read_artists,
    read_class_map,
    read_label_csv,
    read_label_npz,
    read_partition,
)

NPZ = "openmic-2018.npz"
LABELS_CSV = "openmic-2018-aggregated-labels.csv"
METADATA_CSV = "openmic-2018-metadata.csv"
CLASS_MAP = "class-map.json"
POSITIVE = 0.5
"""From this probability on, an instrument counts as playing."""
N_OBSERVED = 2
"""For so many train clips at least each label must be observed."""
EACH_NEEDS = "each label needs two, one to learn from and one to validate by"
_VGGISH_SHAPE = (10, 128)


@dataclass(frozen=True, eq=False)
class ClipDataset:
    """The clips of a data set: keys, labels and the official partition. Audio and VGGish stay on disk.

    `artists` is "" where the metadata names none, and None without metadata; `digest` is the sha256 of
    labels, keys, targets, observed, train and test.
    """

    name: str
    root: Path
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]
    train: Int[np.ndarray, " row"]
    test: Int[np.ndarray, " row"]
    artists: tuple[str, ...] | None
    vggish: Path | None
    digest: str

    def audio_path(self, row: int) -> Path:
        """Return where the clip of a row lies."""
        return self.root / "audio" / audio_name(self.keys[row])


def audio_name(key: str) -> str:
    """Return a clip's place below `audio/`."""
    return f"{key[:3]}/{key}.ogg"


def why_no_root(place: Path) -> str:
    """Say what keeps a path from being a layout's root, and which folder in it may be meant; "" if nothing does."""
    if not place.is_dir():
        return f"{place}: " + ("is there, but is no directory" if lexists(place) else "no such directory")
    if lexists(place / CLASS_MAP):
        return ""
    meant = next((folder for folder in sorted(place.iterdir()) if lexists(folder / CLASS_MAP)), None)
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{place}: no {CLASS_MAP} in it, so it is not the root of an OpenMIC-2018 layout{hint}"


def read_dataset(root: Path) -> ClipDataset:
    """Read and check everything about a data set but its audio, of which it checks that it is there.

    Raises:
        FileNotFoundError: a file of the layout is missing, or the audio of a key.
        ValueError: a file's content breaks the layout's rules; the message names file and row or key.
    """
    root = root.resolve()
    if unfit := why_no_root(root):
        raise FileNotFoundError(unfit)
    labels = read_class_map(root / CLASS_MAP)
    table = _read_labels(root, labels)
    targets = _checked_targets(table, labels)
    train, test = _read_partitions(root / "partitions", table.keys)
    _check_every_label_can_be_split(table.observed[train], labels=labels, source=table.source)
    _check_audio(root / "audio", table.keys)
    metadata = root / METADATA_CSV
    for array in (targets, table.observed, train, test):
        array.setflags(write=False)
    return ClipDataset(
        name=root.name,
        root=root,
        labels=labels,
        keys=table.keys,
        targets=targets,
        observed=table.observed,
        train=train,
        test=test,
        artists=read_artists(metadata, table.keys) if lexists(metadata) else None,
        vggish=table.source if table.source.name == NPZ and "X" in member_names(table.source) else None,
        digest=_digest([*labels, "", *table.keys], arrays=[targets, table.observed, train, test]),
    )


def read_vggish(dataset: ClipDataset) -> Float[np.ndarray, "clip second feature"]:
    """Return the VGGish features, (clip, 10, 128) in 0 to 255, as float32 in the order of `dataset.keys`.

    Raises:
        ValueError: the data set has none, or an array that does not fit its keys or that range.
    """
    on_disk = key_order(read_strings(_vggish_file(dataset), "sample_key"))
    row_of = np.empty_like(on_disk)
    row_of[on_disk] = np.arange(len(on_disk))
    features = np.empty((len(dataset.keys), *_VGGISH_SHAPE), dtype=np.float32)
    start = 0
    for block in vggish_blocks(dataset):
        features[row_of[start : start + len(block)]] = block
        start += len(block)
    return features


def vggish_blocks(dataset: ClipDataset) -> Iterator[np.ndarray]:
    """Yield the VGGish features as they lie on disk, some hundred clips at a time, so that memory holds no more.

    Raises:
        ValueError: as `read_vggish`, perhaps after some of the clips.
    """
    path = _vggish_file(dataset)
    expected = (len(dataset.keys), *_VGGISH_SHAPE)
    if (shape := read_shape(path, "X")) != expected:
        raise ValueError(f"{path}: X has shape {shape}; the keys ask for {expected}")
    for block in read_blocks(path, "X"):
        if block.dtype.kind not in "fiu" or not ((block >= 0) & (block <= 255)).all():
            raise ValueError(f"{path}: X must hold numbers from 0 to 255; some are outside, or no numbers")
        yield block


def _vggish_file(dataset: ClipDataset) -> Path:
    if dataset.vggish is None:
        raise ValueError(
            f"{dataset.root}: no array 'X' in a file {NPZ}, so there are no VGGish features to read; choose systems "
            "that hear log-mel, or add the array"
        )
    return dataset.vggish


def _read_labels(root: Path, labels: tuple[str, ...]) -> LabelTable:
    if lexists(root / NPZ):
        return read_label_npz(root / NPZ, labels)
    if lexists(root / LABELS_CSV):
        return read_label_csv(root / LABELS_CSV, labels)
    raise FileNotFoundError(f"{root}: neither {NPZ} nor {LABELS_CSV} is in it; one of them must hold the labels")


def _checked_targets(table: LabelTable, labels: tuple[str, ...]) -> Float[np.ndarray, "clip label"]:
    """Return the targets as float32, each on the side of 0.5 on which it was written."""
    in_range = (table.targets >= 0) & (table.targets <= 1)
    if not in_range.all():
        row, label = np.argwhere(~in_range)[0]
        raise ValueError(
            f"{table.source}: key {table.keys[row]}, {labels[label]}: label {table.targets[row, label]}; "
            f"a label is a probability, 0 to 1 ({np.count_nonzero(~in_range)} are not)"
        )
    targets = table.targets.astype(np.float32)
    rounded_up = (targets >= POSITIVE) & (table.targets < POSITIVE)
    targets[rounded_up] = np.nextafter(np.float32(POSITIVE), np.float32(0))
    return targets


def _read_partitions(folder: Path, keys: tuple[str, ...]) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    train_csv, test_csv = folder / "split01_train.csv", folder / "split01_test.csv"
    train, test = read_partition(train_csv, keys), read_partition(test_csv, keys)
    if both := [keys[row] for row in np.intersect1d(train, test)]:
        raise ValueError(f"{folder}: {few(both)} in both {train_csv.name} and {test_csv.name}")
    if neither := [keys[row] for row in np.setdiff1d(np.arange(len(keys)), np.union1d(train, test))]:
        raise ValueError(f"{folder}: {few(neither)} in neither {train_csv.name} nor {test_csv.name}")
    return train, test


def _check_every_label_can_be_split(
    observed: Bool[np.ndarray, "clip label"], *, labels: tuple[str, ...], source: Path
) -> None:
    counts = zip(labels, observed.sum(axis=0).tolist(), strict=True)
    if rare := [f"{label} is observed for {count} of the train clips" for label, count in counts if count < N_OBSERVED]:
        raise ValueError(f"{source}: {few(rare)}; {EACH_NEEDS}")


def _check_audio(folder: Path, keys: tuple[str, ...]) -> None:
    """Check that every key has its file, by listing each folder once."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; the clips belong there")
    present = {
        f"{subfolder.name}/{file.name}"
        for subfolder in folder.iterdir()
        if subfolder.is_dir()
        for file in subfolder.iterdir()
    }
    if missing := [key for key in keys if audio_name(key) not in present]:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(keys)} clips are missing: {few(audio_name(key) for key in missing)}"
        )


def _digest(names: list[str], *, arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256("\n".join(names).encode())
    for array in arrays:
        digest.update(f"\n{array.shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
