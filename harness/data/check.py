"""What is in a data set's directory, what is missing from it, and whether a study can use it.

Reads on after each problem, so that one look finds all of them; whether the directory is usable is in the end for
`read_dataset` to say, by which a study reads it too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

import numpy as np

from harness.common.progress import Progress, quiet
from harness.data.check_audio import Audio, check_audio
from harness.data.check_tables import (
    check_label_csv,
    check_label_npz,
    check_metadata,
    check_partition,
    check_partitions,
)
from harness.data.fetch import read_marker
from harness.data.openmic import (
    CLASS_MAP,
    EACH_NEEDS,
    LABELS_CSV,
    METADATA_CSV,
    N_OBSERVED,
    NPZ,
    POSITIVE,
    ClipDataset,
    read_dataset,
    vggish_blocks,
    why_no_root,
)
from harness.data.problems import Problems
from harness.data.tables import LabelTable, read_class_map, read_label_csv, read_label_npz

LabelCounts = Mapping[str, Mapping[str, tuple[int, int]]]
"""By split and label: in how many clips it was annotated as positive, and in how many as negative."""
VGGISH = f"X in {NPZ}"
_SPLITS = {"train": "split01_train.csv", "test": "split01_test.csv"}


@dataclass(frozen=True)
class Found:
    """What a directory holds.

    `problems` keep a study from using it; those `beside` are of what it does not read, or few studies do. `n_clips`
    are by split; `artists` by key, None without metadata; `has_vggish` says that the array is there and whole;
    `dataset` is None if it cannot be read.
    """

    root: Path
    problems: Problems
    beside: Problems
    labels: tuple[str, ...]
    labels_from: str
    n_keys: int
    n_clips: Mapping[str, int]
    counts: LabelCounts | None
    audio: Audio | None
    artists: Mapping[str, str] | None
    has_vggish: bool
    fetched: Mapping[str, object] | None
    dataset: ClipDataset | None

    @property
    def is_usable(self) -> bool:
        """Whether a study can read it."""
        return self.dataset is not None and not len(self.problems)


def why_not_checked(root: Path) -> str:
    """Say why there is nothing to check: a path is no directory, or has nothing of a layout in it; "" if there is."""
    has_any = any(lexists(root / name) for name in (NPZ, LABELS_CSV, METADATA_CSV, "partitions", "audio"))
    return "" if has_any else why_no_root(root)


def check_directory(root: Path, *, reads_all_audio: bool = False, progress: Progress = quiet) -> Found:
    """Look at everything in a directory of OpenMIC-2018's layout; nothing that is wrong with it raises."""
    problems, beside = Problems(), Problems()
    labels = problems.attempt(CLASS_MAP, lambda: read_class_map(root / CLASS_MAP))
    keys, source = _check_labels(root, labels, problems, beside=beside)
    parts = _check_partitions(root / "partitions", keys, problems)
    keys = keys or tuple(sorted({key for part in parts.values() for key in part}))
    counts = _counts(root, labels, source, parts)
    _check_every_label_can_be_split(counts, problems)
    audio = problems.attempt(
        "audio", lambda: check_audio(root / "audio", keys, problems, reads_all=reads_all_audio, progress=progress)
    )
    artists = check_metadata(root / METADATA_CSV, problems) if lexists(root / METADATA_CSV) else None
    dataset = _read(root, problems)
    return Found(
        root=root,
        problems=problems,
        beside=beside,
        labels=labels or (),
        labels_from=source,
        n_keys=len(keys),
        n_clips={split: len(part) for split, part in parts.items()},
        counts=counts,
        audio=audio,
        artists=None if artists is None else {key: artists.get(key, "") for key in keys},
        has_vggish=_has_vggish(dataset, beside),
        fetched=read_marker(root),
        dataset=dataset,
    )


def _check_labels(
    root: Path, labels: Sequence[str] | None, problems: Problems, *, beside: Problems
) -> tuple[tuple[str, ...], str]:
    """Look at both files that may hold the labels; return the keys of the one that a study would read, and its name."""
    has_npz, has_csv = lexists(root / NPZ), lexists(root / LABELS_CSV)
    if has_csv:
        keys = check_label_csv(root / LABELS_CSV, labels, beside if has_npz else problems)
    if has_npz:
        keys = check_label_npz(root / NPZ, labels, problems)
    if not has_npz and not has_csv:
        problems.add("labels", f"missing: neither {NPZ} nor {LABELS_CSV} is there; one of them must hold the labels")
        return (), ""
    return keys, NPZ if has_npz else LABELS_CSV


def _check_partitions(folder: Path, keys: Sequence[str], problems: Problems) -> dict[str, tuple[str, ...]]:
    """Look at both partitions; return the keys of each split."""
    parts = {split: check_partition(folder / name, keys, problems) for split, name in _SPLITS.items()}
    check_partitions(dict(zip(_SPLITS.values(), parts.values(), strict=True)), keys, problems)
    return parts


def _check_every_label_can_be_split(counts: LabelCounts | None, problems: Problems) -> None:
    for label, pair in (counts or {}).get("train", {}).items():
        if sum(pair) < N_OBSERVED:
            problems.add("labels", f"{label} is observed for {sum(pair)} of the train clips; {EACH_NEEDS}")


def _counts(
    root: Path, labels: tuple[str, ...] | None, source: str, parts: Mapping[str, Sequence[str]]
) -> LabelCounts | None:
    """Count the annotations of the clips that a partition lists; None where the labels cannot be read."""
    if labels is None or not source:
        return None
    read = read_label_npz if source == NPZ else read_label_csv
    table = Problems().attempt(source, lambda: read(root / source, labels))  # what is wrong is known already
    if table is None:
        return None
    return {split: _count(table, labels, part) for split, part in parts.items()}


def _count(table: LabelTable, labels: Sequence[str], keys: Sequence[str]) -> dict[str, tuple[int, int]]:
    rows = np.isin(np.array(table.keys, dtype=np.str_), np.array(keys, dtype=np.str_))
    observed, positive = table.observed[rows], table.targets[rows] >= POSITIVE
    n_positive, n_observed = (observed & positive).sum(axis=0), observed.sum(axis=0)
    return {label: (int(n_positive[i]), int(n_observed[i] - n_positive[i])) for i, label in enumerate(labels)}


def _read(root: Path, problems: Problems) -> ClipDataset | None:
    """Read the directory as a study does; its objection counts if nothing else was found."""
    unsaid = Problems()
    dataset = unsaid.attempt("data set", lambda: read_dataset(root))
    if not len(problems):
        for text in unsaid.by_place.get("data set", []):
            problems.add("data set", text)
    return dataset


def _has_vggish(dataset: ClipDataset | None, beside: Problems) -> bool:
    if dataset is None or dataset.vggish is None:
        return False
    return beside.attempt(VGGISH, lambda: sum(map(len, vggish_blocks(dataset)))) is not None
