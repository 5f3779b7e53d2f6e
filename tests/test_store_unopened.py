"""Files that cannot be opened: all are named at the end, the others are computed, and a lost disk ends it early."""

import numpy as np
import pytest

from harness.data import store_filling
from harness.data.extraction import Heard, Unopened
from harness.data.openmic import read_dataset
from harness.data.store import open_store, prepare_features
from harness.features.machines import samples_of, trouble_with_all
from harness.features.ray_extraction import _hear
from tests.support.layouts import Layout, write_tone
from tests.support.stores import FRONT_END, counting, forbid, labels_of, no_work, preparing, tones, touch


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(tones(tmp_path / "d"))


@pytest.fixture
def prepare(dataset, tmp_path):
    """Prepare the data set's features in a cache of the test's own."""
    return preparing(dataset, tmp_path / "cache")


def store_of(tmp_path):
    (path,) = (tmp_path / "cache/features").glob("*[0-9a-f]")
    return open_store(path)


def answering(answers):
    """Return an extraction that says of each clip whether it was opened, and notes in a list how many it was asked."""
    asked = []

    def extract(paths, _front_end):
        for position, is_open in zip(range(len(paths)), answers, strict=False):
            asked.append(position)
            heard = Heard(np.ones((32, 128), np.float16), "", bytes(32))
            yield position, heard if is_open else Unopened("Input/output error")

    return extract, asked


def test_all_files_that_cannot_be_opened_are_named_and_only_they_are_left_to_do(
    dataset, prepare, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        forbid(patch, [dataset.audio_path(row) for row in (0, 4)])
        with pytest.raises(
            OSError,
            match=r"2 of 8 audio files cannot be opened: 000/000000_3840\.ogg: Permission denied, "
            r"000/000004_19200\.ogg: Permission denied; the others' features are kept, so mend this and run",
        ):
            prepare(skip_corrupt=True)
    assert store_of(tmp_path).missing().tolist() == [0, 4]
    assert not (store_of(tmp_path).path / "filling").exists()
    heard = []
    assert prepare(compute=counting(heard)).available.all()
    assert sorted(heard) == [dataset.audio_path(row).name for row in (0, 4)]


def test_of_many_files_that_cannot_be_opened_ten_are_named(tmp_path):
    dataset = read_dataset(Layout(n_clips=14, n_train=10).write(tmp_path / "d"))
    compute, _ = answering([False] * 13 + [True])
    with pytest.raises(OSError, match="13 of 14 audio files cannot be opened: ") as raised:
        prepare_features(dataset, FRONT_END, cache=tmp_path / "cache", compute=compute)
    assert str(raised.value).count("Input/output error") == 10
    assert "and 3 more" in str(raised.value)


def test_a_touched_clip_that_cannot_be_opened_keeps_its_features(dataset, prepare, tmp_path, monkeypatch):
    prepare()
    touch(dataset, 3, 5)
    with monkeypatch.context() as patch:
        forbid(patch, [dataset.audio_path(3)])
        with pytest.raises(OSError, match=r"1 of 8 audio files cannot be opened: 000/000003_15360\.ogg: Permission"):
            prepare(compute=no_work)
    assert store_of(tmp_path).available.all()
    seen = []
    prepare(compute=no_work, progress=labels_of(seen))
    assert seen == [("checking audio", 1)]


@pytest.fixture
def many(tmp_path):
    """Return a data set of more clips than are tried where none can be opened."""
    return read_dataset(Layout(n_clips=150, n_train=100).write(tmp_path / "many"))


def test_where_none_of_the_first_hundred_files_can_be_opened_the_others_are_not_tried(many, tmp_path):
    compute, asked = answering([False] * 150)
    with pytest.raises(OSError, match="100 audio files in a row cannot be opened, so the others were not tried: "):
        prepare_features(many, FRONT_END, cache=tmp_path / "cache", compute=compute)
    assert len(asked) == 100


def test_a_disk_that_is_lost_after_the_audio_was_touched_ends_it_too(many, tmp_path, monkeypatch):
    compute, _ = answering([True] * 150)
    prepare_features(many, FRONT_END, cache=tmp_path / "cache", compute=compute)
    touch(many, *range(150))
    forbid(monkeypatch, [many.audio_path(row) for row in range(150)])
    with pytest.raises(OSError, match="100 audio files in a row cannot be opened"):
        prepare_features(many, FRONT_END, cache=tmp_path / "cache", compute=no_work)
    assert store_of(tmp_path).available.all()


def test_after_the_first_clip_a_folder_that_cannot_be_opened_ends_nothing_but_a_lost_disk_does(
    many, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_filling, "_FAILED_IN_A_ROW", 120)
    compute, asked = answering([True] + [False] * 119 + [True] + [False] * 29)
    with pytest.raises(OSError, match="148 of 150 audio files cannot be opened"):
        prepare_features(many, FRONT_END, cache=tmp_path / "cache", compute=compute)
    assert len(asked) == 150
    compute, asked = answering([True] + [False] * 147)
    with pytest.raises(OSError, match="120 audio files in a row cannot be opened"):
        prepare_features(many, FRONT_END, cache=tmp_path / "cache", compute=compute)
    assert len(asked) == 121
    assert store_of(tmp_path).available.sum() == 3


def test_a_worker_of_ray_says_on_which_machine_a_file_cannot_be_opened_and_hears_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "there")
    write_tone(tmp_path / "good.ogg")
    (unopened, heard), _ = _hear([tmp_path, tmp_path / "good.ogg"], FRONT_END, ())
    assert unopened == Unopened("not a regular file but a directory on there")
    assert heard.log_mel.shape == (32, 128)


def test_a_worker_of_ray_that_came_later_and_has_other_audio_hears_none_of_it(tmp_path, monkeypatch):
    """Its node could not be asked when the work was begun; what it heard would be stored as of our files."""
    monkeypatch.setattr("platform.node", lambda: "there")
    clips = [tmp_path / f"{row}.ogg" for row in range(3)]
    for clip in clips:
        write_tone(clip)
    samples = samples_of(clips)
    clips[0].unlink()
    found, _ = _hear(clips, FRONT_END, samples)
    assert [isinstance(each, Unopened) for each in found] == [True, False, False]  # it has some of the same audio
    for row, clip in enumerate(clips):
        write_tone(clip, hertz=1000 + row)
    trouble_with_all.cache_clear()  # as another process
    found, _ = _hear(clips, FRONT_END, samples)
    assert found == [Unopened(f"{clips[0]} holds other audio on there")] * 3
