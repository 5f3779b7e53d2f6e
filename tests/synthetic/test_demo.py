"""The demo set: its layout through the reader, its labels, its digest, and its place in the cache."""

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from harness.common.cli import MIN_DEMO_CLIPS
from harness.common.progress import quiet
from harness.config.study import DataSpec
from harness.data import openmic
from harness.data.splits import random_validation
from harness.features.inputs import LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.study.heldout import open_test_split
from harness.study.sources import open_dataset, open_study_data
from harness.synthetic import demo
from harness.synthetic.demo import (
    INSTRUMENTS,
    LABELS,
    MIN_CLIPS,
    annotate,
    default_soundfont,
    demo_digest,
    demo_truth,
    ensure_demo,
    plan_clips,
    render_clip,
)

SPLIT_SEED = 2  # with which each half of so few training clips has an annotation of every label


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A demo set of which every tenth clip is music; the others are noise, which takes no time to render."""

    def render(plan, soundfont):
        if int(plan.key[:6]) % 10 == 0:
            return render_clip(plan, soundfont)
        return np.random.default_rng(plan.seed).integers(-200, 200, 160_000, dtype=np.int16)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "render_clip", render)
        return ensure_demo(tmp_path_factory.mktemp("cache"), n_clips=MIN_CLIPS, workers=1, progress=quiet)


@pytest.fixture
def without_audio(monkeypatch):
    """Write no audio: for tests of labels and places."""
    monkeypatch.setattr(demo, "_write_audio", lambda *_: np.zeros(160_000, np.int16))
    monkeypatch.setattr(demo, "_mean_log_mel", lambda _: np.zeros((10, 128), np.uint8))


@pytest.fixture(scope="module")
def dataset(root):
    return openmic.read_dataset(root)


def test_the_reader_takes_the_demo_set_for_openmic(dataset):
    assert dataset.name == f"v1-{MIN_CLIPS}-0"
    assert len(dataset.keys) == MIN_CLIPS
    assert (len(dataset.train), len(dataset.test)) == (60, 20)
    assert dataset.labels == (
        *("accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar"),
        *("mallet_percussion", "mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone"),
        *("trumpet", "ukulele", "violin", "voice"),
    )


def test_audio_is_ten_seconds_of_music_that_does_not_clip(dataset):
    for row in range(0, MIN_CLIPS, 10):
        samples, sample_rate = soundfile.read(dataset.paths[row], dtype="float32")
        assert sample_rate == 16_000
        assert samples.shape == (160_000,)
        assert 0.2 < np.abs(samples).max() <= 1.0
        seconds = samples.reshape(10, -1).std(axis=1)
        assert (seconds > 1e-4).sum() >= 5
    features = openmic.read_vggish(dataset)  # a spectrum for each second
    assert features.std(axis=(1, 2)).min() > 10


def test_an_artist_plays_in_one_part_of_the_partition(dataset):
    train, test = ({dataset.artists[row] for row in rows} for rows in (dataset.train, dataset.test))
    assert len(train) >= 7
    assert train.isdisjoint(test)


@pytest.mark.parametrize("n_clips", [MIN_CLIPS, 203])
def test_every_instrument_has_positive_and_negative_labels_in_each_part(n_clips):
    plans = plan_clips(n_clips, seed=3)
    annotations = annotate(plans, seed=3)
    is_test = np.array([plan.artist.is_test for plan in plans])
    for part in (is_test, ~is_test):
        observed, positive = annotations.observed[part], annotations.targets[part] >= 0.5
        assert (observed & positive).any(axis=0).all()
        assert (observed & ~positive).any(axis=0).all()


def test_about_one_label_in_ten_is_observed_and_every_clip_has_one():
    annotations = annotate(plan_clips(800, seed=0), seed=0)
    assert annotations.observed.mean() == pytest.approx(0.1, abs=0.01)
    assert annotations.observed.any(axis=1).all()
    positive = annotations.targets[annotations.observed] >= 0.5
    assert positive.mean() == pytest.approx(0.44, abs=0.03)


def test_an_observed_label_says_whether_the_instrument_plays_and_the_others_say_nothing():
    plans = plan_clips(200, seed=1)
    annotations = annotate(plans, seed=1)
    plays = np.array([[label in plan.instruments for label in range(len(LABELS))] for plan in plans])
    np.testing.assert_array_equal((annotations.targets >= 0.5)[annotations.observed], plays[annotations.observed])
    assert ((annotations.targets >= 0) & (annotations.targets <= 1)).all()
    assert (annotations.targets[~annotations.observed] == 0.5).all()


def test_a_clip_has_a_part_for_each_of_its_instruments():
    for plan in plan_clips(MIN_CLIPS, seed=2):
        programs = {part.program for part in plan.piece().parts}
        for index in plan.instruments:
            assert programs & {voice.program for voice in INSTRUMENTS[LABELS[index]]}
        assert 1 <= len(plan.instruments) == len(set(plan.instruments)) <= 4


@pytest.mark.drill
def test_the_same_seed_gives_the_same_digest_in_one_process_and_in_two(tmp_path):
    one, two = (ensure_demo(tmp_path / str(n), n_clips=MIN_CLIPS, workers=n, progress=quiet) for n in (1, 2))
    assert demo_digest(one) == demo_digest(two)


def test_another_seed_gives_other_music_and_other_labels(tmp_path, without_audio):
    first, again, other = (render_clip(plan_clips(MIN_CLIPS, seed)[0], default_soundfont()) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    made = [ensure_demo(tmp_path, n_clips=MIN_CLIPS, seed=seed, workers=1, progress=quiet) for seed in (0, 1)]
    assert demo_digest(made[0]) != demo_digest(made[1])


def test_the_digest_is_over_the_samples(root, tmp_path, without_audio):
    silent = ensure_demo(tmp_path, n_clips=MIN_CLIPS, workers=1, progress=quiet)
    assert demo_digest(silent) != demo_digest(root)


def test_a_set_in_the_cache_is_not_rendered_again(root, monkeypatch):
    monkeypatch.setattr(demo, "write_demo", lambda *_, **__: pytest.fail("rendered again"))
    cache = root.parent.parent
    assert ensure_demo(cache, n_clips=MIN_CLIPS, workers=1, progress=quiet) == root


def test_a_rendering_that_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch, without_audio):
    def break_off(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(demo, "write_tables", break_off)
    with pytest.raises(OSError, match="disk full"):
        ensure_demo(tmp_path, n_clips=MIN_CLIPS, workers=1, progress=quiet)
    assert list((tmp_path / "demo").iterdir()) == []


def test_of_two_renderings_at_once_the_first_to_finish_stays(tmp_path, monkeypatch):
    root = tmp_path / "demo" / f"v1-{MIN_CLIPS}-0"

    def finish_second(unfinished, *_, **__):
        for folder, owner in ((root, "theirs"), (unfinished, "ours")):
            folder.mkdir()
            (folder / owner).touch()

    monkeypatch.setattr(demo, "write_demo", finish_second)
    assert ensure_demo(tmp_path, n_clips=MIN_CLIPS, workers=1, progress=quiet) == root
    assert [entry.name for entry in root.iterdir()] == ["theirs"]
    assert list(root.parent.iterdir()) == [root]


def open_whole(root, inputs, monkeypatch, *, reveals_all):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(root.parent.parent))
    spec = DataSpec(demo_clips=MIN_CLIPS, validation_fraction=0.5, split_seed=SPLIT_SEED, reveals_all=reveals_all)
    dataset = open_dataset(spec)
    test = open_test_split(spec, dataset, inputs=inputs)
    return dataset, open_study_data(spec, dataset, inputs=inputs), test


def test_revealed_training_clips_show_all_that_plays_among_true_labels(root, monkeypatch):
    inputs = Vggish()
    dataset, sparse, _ = open_whole(root, inputs, monkeypatch, reveals_all=False)
    _, revealed, _ = open_whole(root, inputs, monkeypatch, reveals_all=True)
    assert revealed.train.observed[revealed.train.targets == 1].all()
    assert revealed.train.observed[sparse.train.observed].all()
    assert revealed.train.observed.dtype == np.bool_
    shares = [
        (part.targets >= 0.5).sum(axis=0, where=part.observed) / part.observed.sum(axis=0)
        for part in (sparse.train, revealed.train)
    ]
    has_both = (shares[0] > 0) & (shares[0] < 1)
    np.testing.assert_allclose(shares[1][has_both], shares[0][has_both], atol=0.1)
    assert revealed.train.targets.dtype == np.float32
    plan_of = {plan.key: plan for plan in plan_clips(MIN_CLIPS, seed=0)}
    for row, targets in zip(revealed.train.rows, revealed.train.targets, strict=True):
        playing = {LABELS[index] for index in plan_of[dataset.keys[row]].instruments}
        assert dict(zip(dataset.labels, targets, strict=True)) == {label: label in playing for label in LABELS}
    np.testing.assert_array_equal(revealed.train.rows, sparse.train.rows)
    observed = sparse.train.observed
    assert observed.mean() < 0.2
    np.testing.assert_array_equal(revealed.train.targets[observed] == 1, sparse.train.targets[observed] >= 0.5)


def test_revealing_changes_no_other_part_and_is_other_data(root, monkeypatch):
    inputs = LogMel(FrontEnd(n_mels=32, n_frames=32))
    before = demo_digest(root)
    _, sparse, sparse_test = open_whole(root, inputs, monkeypatch, reveals_all=False)
    _, revealed, revealed_test = open_whole(root, inputs, monkeypatch, reveals_all=True)
    for ours, theirs in ((sparse.validation, revealed.validation), (sparse_test, revealed_test)):
        for name in ("rows", "targets", "observed"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (sparse.mean, sparse.std) == (revealed.mean, revealed.std)
    assert sparse.digest != revealed.digest
    assert open_whole(root, inputs, monkeypatch, reveals_all=True)[1].digest == revealed.digest
    assert demo_digest(root) == before


@pytest.mark.parametrize("source", ["openmic", "/data/mine"])
def test_only_the_demo_can_reveal_its_labels(source):
    with pytest.raises(ValueError, match=f"data='{source}': reveals_all"):
        DataSpec(source=source, reveals_all=True)


def test_annotations_that_do_not_fit_the_plans_of_today_reveal_nothing(dataset):
    """As when another version of NumPy draws other clips from the same seed."""
    assert demo_truth(dataset).shape == dataset.targets.shape
    other = replace(dataset, targets=1 - dataset.targets)
    with pytest.raises(ValueError, match="annotations differ from the clips drawn today"):
        demo_truth(other)


def _ensure(cache):
    demo._write_audio = lambda *_: np.zeros(160_000, np.int16)  # the files do not matter here
    return str(ensure_demo(cache, n_clips=MIN_CLIPS, workers=1, progress=quiet))


@pytest.mark.drill
def test_two_processes_at_once_give_one_set(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        roots = pool.map(_ensure, [tmp_path, tmp_path], chunksize=1)
    assert roots == [str(tmp_path / "demo" / f"v1-{MIN_CLIPS}-0")] * 2
    assert [entry.name for entry in (tmp_path / "demo").iterdir()] == [f"v1-{MIN_CLIPS}-0"]


def test_too_small_a_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="demo clips=79: must be at least 80"):
        ensure_demo(tmp_path, n_clips=79, workers=1, progress=quiet)


def test_a_rendering_process_needs_no_torch():
    code = "import sys, harness.synthetic.demo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_least_size_of_the_flag_is_the_smallest_that_the_default_split_and_seed_suit():
    def is_suitable(n_clips):
        plans = plan_clips(n_clips, seed=0)
        train = np.flatnonzero([not plan.artist.is_test for plan in plans])
        observed = annotate(plans, seed=0).observed
        split = random_validation(SimpleNamespace(train=train), DataSpec.validation_fraction, seed=0)
        return all(observed[rows].any(axis=0).all() for rows in (split, np.setdiff1d(train, split)))

    sizes = range(MIN_CLIPS, MIN_DEMO_CLIPS + 1, len(LABELS))
    assert [n_clips for n_clips in sizes if is_suitable(n_clips)] == [MIN_DEMO_CLIPS]
