import matplotlib.image
import numpy as np
import pytest

from tracking import figures

LABELS = ("accordion", "mallet_percussion", "voice")


@pytest.fixture
def log_mel():
    rng = np.random.default_rng(0)
    return rng.normal(-8, 3, size=(256, 128)).astype(np.float32)


def _size(path):
    height, width, _ = matplotlib.image.imread(path).shape
    return width, height


def test_f1_by_label_is_a_small_picture_of_every_label(tmp_path):
    f1 = {label: 0.2 + 0.3 * row for row, label in enumerate(LABELS)}
    path = figures.f1_by_label(tmp_path / "new" / "f1.png", f1, title="unet-000")
    assert _size(path)[0] == 640
    assert path.stat().st_size < 100_000


def test_f1_by_label_grows_with_the_number_of_labels(tmp_path):
    few = figures.f1_by_label(tmp_path / "few.png", dict.fromkeys("abc", 0.5))
    many = figures.f1_by_label(tmp_path / "many.png", dict.fromkeys("abcdefghijklmnopqrst", 0.5))
    assert _size(many)[1] > _size(few)[1] + 300


def test_learning_curves_of_a_diverged_trial_are_drawn_as_far_as_they_go(tmp_path):
    path = figures.learning_curves(
        tmp_path / "curves.png",
        losses={"train": [0.7, 0.6, float("nan")], "validation": [0.8, 0.7]},
        scores={"macro-F1": [0.4, 0.5]},
    )
    assert _size(path) == (800, 380)


def test_the_input_change_shows_both_pictures_and_the_difference(tmp_path, log_mel):
    changed = log_mel + np.linspace(-1, 1, 128, dtype=np.float32)
    same = figures.input_change(tmp_path / "same.png", log_mel, log_mel, hop_ms=40)
    other = figures.input_change(tmp_path / "other.png", log_mel, changed, hop_ms=40)
    top, bottom = slice(60, 198), slice(415, 550)
    first, second = matplotlib.image.imread(same), matplotlib.image.imread(other)
    assert np.abs(first[bottom, 60:720] - second[bottom, 60:720]).mean() > 0.05
    assert np.abs(first[bottom, 60:720, :3] - 1).mean() < 0.05, "no change is white"
    assert first[top, 60:720].std() > 0.1


def test_both_pictures_share_one_colour_scale(tmp_path, log_mel):
    louder = figures.input_change(tmp_path / "louder.png", log_mel, log_mel + 20, hop_ms=40)
    picture = matplotlib.image.imread(louder)
    before, after = picture[60:198, 60:720, :3], picture[240:375, 60:720, :3]
    assert after.mean() > before.mean() + 0.3


def test_a_silent_clip_is_drawn_without_a_warning(tmp_path):
    silent = np.zeros((256, 128), dtype=np.float32)
    assert figures.input_change(tmp_path / "silent.png", silent, silent, hop_ms=40).exists()
