"""A small data set on disk in OpenMIC-2018's layout, which a test may spoil before it is written."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

LABELS = ("banjo", "cello", "voice")


@dataclass
class Layout:
    """Keys, labels, partition and artists; `write` puts them on disk, with empty audio files."""

    n_clips: int = 8
    n_train: int = 6
    keys: list[str] = field(default_factory=list)
    targets: np.ndarray = field(default_factory=lambda: np.zeros(0))
    observed: np.ndarray = field(default_factory=lambda: np.zeros(0))
    train: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    artists: dict[str, str] = field(default_factory=dict)
    vggish: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self):
        rng = np.random.default_rng(0)
        self.keys = [f"{i:06}_{3840 * (i + 1)}" for i in range(self.n_clips)]
        self.observed = rng.random((self.n_clips, len(LABELS))) < 0.3
        self.observed[np.arange(self.n_clips), np.arange(self.n_clips) % len(LABELS)] = True
        self.targets = np.where(self.observed, rng.random(self.observed.shape).round(3), 0.5)
        self.train, self.test = self.keys[: self.n_train], self.keys[self.n_train :]
        self.vggish = np.random.default_rng(1).integers(0, 256, (self.n_clips, 10, 128))
        self.artists = {key: f"artist {i // 2}" for i, key in enumerate(self.keys)}

    def write(self, root: Path, *, labels_as: str = "npz") -> Path:
        (root / "partitions").mkdir(parents=True)
        (root / "class-map.json").write_text(json.dumps({label: i for i, label in enumerate(LABELS)}))
        (root / "partitions/split01_train.csv").write_text("".join(f"{key}\n" for key in self.train))
        (root / "partitions/split01_test.csv").write_text("".join(f"{key}\n" for key in self.test))
        rows = [(46, name, key) for key, name in self.artists.items()]
        write_csv(root / "openmic-2018-metadata.csv", [("track_id", "artist_name", "sample_key"), *rows])
        if labels_as == "npz":
            self.write_npz(root)
        else:
            self.write_csv(root)
        for key in self.keys:
            path = root / "audio" / key[:3] / f"{key}.ogg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return root

    def write_npz(self, root: Path):
        np.savez_compressed(
            root / "openmic-2018.npz",
            X=self.vggish,
            Y_true=self.targets,
            Y_mask=self.observed,
            sample_key=np.array(self.keys, dtype=object),  # as the official file has it
        )

    def write_csv(self, root: Path):
        rows = [
            (self.keys[row], LABELS[label], repr(float(self.targets[row, label])), 3)
            for row, label in np.argwhere(self.observed)
        ]
        header = ("sample_key", "instrument", "relevance", "num_responses")
        write_csv(root / "openmic-2018-aggregated-labels.csv", [header, *rows])


def write_csv(path: Path, rows: list[tuple]):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_tone(path: Path, *, hertz: float = 440, seconds: float = 0.5, sample_rate: int = 44100, channels: int = 2):
    """Write a tone. No two files are equal, since each gets a random stream number; equal ones would share features."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.5 * np.sin(2 * np.pi * hertz * time).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([tone] * channels, axis=1), sample_rate, format="OGG", subtype="VORBIS")
