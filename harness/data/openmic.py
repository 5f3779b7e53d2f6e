"""OpenMIC-2018's layout on disk, which the real data set, the demo and many users' own data sets have.

    ROOT/class-map.json                           {"accordion": 0, ...}
    ROOT/openmic-2018.npz                         sample_key, Y_true, Y_mask; X (VGGish) is optional. Or else:
    ROOT/openmic-2018-aggregated-labels.csv       sample_key, instrument, relevance
    ROOT/openmic-2018-metadata.csv                sample_key, artist_name (optional)
    ROOT/partitions/split01_{train,test}.csv      one key a line
    ROOT/audio/000/000046_3840.ogg                the folder is the key's first three characters

Each reader of a file gives its `Problems` every broken rule that it finds, with line or row. It returns the rest, which
is of use only to a check that collects problems: for a study the first one has raised.

Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018; the layout of openmic-2018-v1.0.0.tgz.
"""

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from os.path import lexists
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped

from harness.common.text import summarise
from harness.data.dataset import UNOBSERVED, ClipDataset, LabelTable, Problems, make_dataset, normalised
from harness.data.npz import member_names, read_array, read_strings

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
_NOT_IN_A_NAME = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


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
    labels = problems.attempt(root / CLASS_MAP, lambda: _read_class_map(root / CLASS_MAP), ())
    table = _read_labels(root, labels, problems)
    train, test = (_read_partition(root / name, table.keys, problems) for name in PARTITIONS)
    metadata = root / METADATA_CSV
    has_vggish = table.source.name == NPZ and "X" in problems.attempt(
        table.source, lambda: member_names(table.source), set()
    )
    return make_dataset(
        root,
        labels,
        table,
        paths=_find_audio(root / "audio", table.keys, problems),
        train=train,
        test=test,
        artists=_read_artists(metadata, table.keys, problems) if lexists(metadata) else None,
        vggish=table.source if has_vggish else None,
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
    path = dataset.vggish
    if path is None:
        raise ValueError(
            f"{dataset.root}: no array 'X' in a file {NPZ}, so there are no VGGish features; choose systems with "
            "log-mel input, or add the array"
        )
    stored, expected = read_array(path, "X"), (len(dataset.keys), *_VGGISH_SHAPE)
    if stored.shape != expected:
        raise ValueError(f"{path}: X has shape {stored.shape}; the keys need {expected}")
    # NaN is both the minimum and the maximum
    if stored.dtype.kind not in "fiu" or not (stored.min() >= 0 and stored.max() <= 255):
        raise ValueError(f"{path}: X must hold numbers from 0 to 255; some are outside, or no numbers")
    row_of = {key: row for row, key in enumerate(dataset.keys)}
    features = np.empty(expected, dtype=np.float32)
    features[[row_of[key] for key in _read_keys(path)]] = stored
    return features


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


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _read_class_map(path: Path) -> tuple[str, ...]:
    """Return the labels in the order of their class indices."""
    try:
        index_of = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(index_of, dict) or not index_of:
        raise ValueError(f"{path}: must be an object that maps each label to its index")
    if {repr(index) for index in index_of.values()} != {repr(index) for index in range(len(index_of))}:
        raise ValueError(f"{path}: the indices are {[*index_of.values()]}; they must be 0 to {len(index_of) - 1}")
    return tuple(normalised(label) for label in sorted(index_of, key=index_of.__getitem__))


def _read_labels(root: Path, labels: Sequence[str], problems: Problems) -> LabelTable:
    if lexists(root / NPZ):
        return _read_label_npz(root / NPZ, labels, problems)
    if not lexists(root / LABELS_CSV):
        problems.add(root, f"has neither {NPZ} nor {LABELS_CSV}; one of them must hold the labels")
        return LabelTable(root, (), np.zeros((0, len(labels))), np.zeros((0, len(labels)), np.bool_))
    return _read_label_csv(root / LABELS_CSV, labels, problems)


def _read_label_npz(path: Path, labels: Sequence[str], problems: Problems) -> LabelTable:
    keys = problems.attempt(path, lambda: _read_keys(path), ())
    problems.add(path, *(f"sample_key[{row}]: {unfit}" for row, key in enumerate(keys) if (unfit := _why_no_name(key))))
    shape = (len(keys), len(labels))
    targets, observed = np.full(shape, UNOBSERVED), np.zeros(shape, np.bool_)
    if keys and labels:
        targets = problems.attempt(path, lambda: _read_cells(path, "Y_true", shape, kinds="fiu"), targets)
        observed = problems.attempt(path, lambda: _read_cells(path, "Y_mask", shape, kinds="b"), observed)
    return LabelTable(path, keys, targets, observed)


def _read_keys(path: Path) -> tuple[str, ...]:
    """Return an .npz file's `sample_key` in the file's order."""
    return tuple(map(normalised, read_strings(path, "sample_key")))


def _read_cells(path: Path, name: str, shape: tuple[int, int], *, kinds: str) -> Shaped[np.ndarray, "clip label"]:
    """Return an array with a row a key and a column a label; `kinds` are NumPy's letters of the types allowed."""
    array = read_array(path, name)
    if array.shape != shape:
        raise ValueError(
            f"{path}: {name} has shape {array.shape}; {shape[0]} sample keys and {shape[1]} instruments need {shape}"
        )
    if array.dtype.kind not in kinds:
        needed = "be boolean" if kinds == "b" else "hold numbers"
        raise ValueError(f"{path}: {name} has type {array.dtype}; it must {needed}")
    return array


def _read_label_csv(path: Path, labels: Sequence[str], problems: Problems) -> LabelTable:
    """Read the aggregated labels: `relevance` is the probability; a pair that is not listed is not observed."""
    column_of = {label: column for column, label in enumerate(labels)}
    listed: dict[tuple[str, str], tuple[int, float]] = {}
    for line, (key, label, relevance) in _read_csv(path, ("sample_key", "instrument", "relevance"), problems):
        value, unfit = _number(relevance), _why_no_name(key)
        if unfit:
            problems.add(path, f"line {line}: {unfit}")
        elif labels and label not in column_of:
            problems.add(path, f"line {line}: unknown instrument {label!r}; it is one of {', '.join(labels)}")
        elif value is None:
            problems.add(path, f"line {line}: relevance {relevance!r} is not a number")
        elif (key, label) in listed:
            first, _ = listed[key, label]
            problems.add(path, f"line {line}: {key} and {label} are listed twice, first on line {first}")
        else:
            listed[key, label] = line, value
    keys = tuple(dict.fromkeys(key for key, _ in listed))
    row_of = {key: row for row, key in enumerate(keys)}
    targets = np.full((len(keys), len(labels)), UNOBSERVED)
    observed = np.zeros(targets.shape, dtype=np.bool_)
    for (key, label), (_, value) in listed.items():
        if labels:
            targets[row_of[key], column_of[label]] = value
            observed[row_of[key], column_of[label]] = True
    return LabelTable(path, keys, targets, observed)


def _read_partition(path: Path, keys: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """Return the keys that a partition lists, one a line, without a header."""
    known, listed = set(keys), dict[str, int]()
    text = problems.attempt(path, lambda: path.read_text(encoding="utf-8-sig", errors="replace"), None)
    for line, key in enumerate(map(normalised, map(str.strip, (text or "").splitlines())), 1):
        if not key:
            continue
        if known and key not in known:
            problems.add(path, f"line {line}: key {key!r} has no labels in this data set")
        elif (first := listed.setdefault(key, line)) != line:
            problems.add(path, f"line {line}: key {key} is listed twice, first on line {first}")
    if text is not None and not listed:
        problems.add(path, "lists no key; a split must not be empty")
    return tuple(key for key in listed if key in known)


def _read_artists(path: Path, keys: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """Return each key's artist by name, "" where the metadata names none.

    The name decides, not `artist_id`: an artist with two ids must not be on both sides of a split.
    """
    artist_of = {key: name.strip() for _, (key, name) in _read_csv(path, ("sample_key", "artist_name"), problems)}
    return tuple(artist_of.get(key, "") for key in keys)


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


def _why_no_name(key: str) -> str:
    """Return the reason why a key cannot name a clip's file, "" if it can."""
    if key not in {"", ".", ".."} and _NOT_IN_A_NAME.search(key) is None:
        return ""
    return (
        f"key {key!r} is no plain name; a key names the clip's file, so it must not be empty, . or .., nor contain /, "
        "\\ or a control character"
    )


def _read_csv(path: Path, columns: Sequence[str], problems: Problems) -> list[tuple[int, tuple[str, ...]]]:
    """Return the line number and the named columns of each row of a CSV file with a header."""
    return problems.attempt(path, lambda: list(_csv_rows(path, columns, problems)), [])


def _csv_rows(path: Path, columns: Sequence[str], problems: Problems) -> Iterator[tuple[int, tuple[str, ...]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            if missing := [name for name in columns if name not in header]:
                raise ValueError(f"{path}: no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
            places = [header.index(name) for name in columns]
            for row in reader:
                if row and len(row) <= max(places):
                    problems.add(path, f"line {reader.line_num}: {len(row)} of {len(header)} columns")
                elif row:
                    yield reader.line_num, tuple(normalised(row[place]) for place in places)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not CSV in UTF-8 after line {reader.line_num} ({error})") from error


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
