"""The layout is read and checked; a study stops at the first broken rule, named with its file and row."""

import pickle
import re
import shutil
import time
import unicodedata

import numpy as np
import pytest

from harness.data.openmic import read_dataset, read_vggish
from tests.support.layouts import LABELS, Layout

NPZ, CSV = "openmic-2018.npz", "openmic-2018-aggregated-labels.csv"


@pytest.fixture
def layout():
    return Layout()


def test_a_data_set_is_read_as_it_was_written(tmp_path, layout):
    dataset = read_dataset(layout.write(tmp_path / "mine"))
    assert (dataset.name, dataset.labels, dataset.keys) == ("mine", LABELS, tuple(layout.keys))
    np.testing.assert_array_equal(dataset.targets, layout.targets.astype(np.float32))
    np.testing.assert_array_equal(dataset.observed, layout.observed)
    assert [dataset.keys[row] for row in dataset.train] == layout.train
    assert [dataset.keys[row] for row in dataset.test] == layout.test
    assert dataset.artists == tuple(layout.artists.values())
    assert dataset.paths[2] == tmp_path / "mine/audio/000/000002_11520.ogg"
    assert dataset.targets.dtype == np.float32
    assert dataset.train.dtype == np.int64


def test_the_csv_says_the_same_as_the_npz(tmp_path, layout):
    from_npz = read_dataset(layout.write(tmp_path / "npz"))
    from_csv = read_dataset(layout.write(tmp_path / "csv", labels_as="csv"))
    assert from_csv.digest == from_npz.digest
    np.testing.assert_array_equal(from_csv.targets, from_npz.targets)
    assert from_csv.vggish is None


def test_rows_are_sorted_by_key_whatever_the_order_on_disk(tmp_path, layout):
    straight = read_dataset(layout.write(tmp_path / "straight"))
    layout.keys.reverse()
    layout.train.reverse()
    layout.targets, layout.observed = layout.targets[::-1], layout.observed[::-1]
    reversed_ = read_dataset(layout.write(tmp_path / "reversed"))
    assert reversed_.digest == straight.digest
    np.testing.assert_array_equal(read_vggish(reversed_), read_vggish(straight)[::-1])


def test_a_target_just_below_one_half_stays_negative_in_float32(tmp_path, layout):
    layout.targets[0, :2] = np.nextafter(0.5, 0), 0.5
    dataset = read_dataset(layout.write(tmp_path / "d"))
    assert dataset.targets[0, 0] < 0.5
    assert dataset.targets[0, 1] == 0.5


@pytest.mark.parametrize("field", ["targets", "observed", "train"])
def test_the_digest_follows_what_is_read(tmp_path, layout, field):
    before = read_dataset(layout.write(tmp_path / "before")).digest
    if field == "targets":
        layout.targets[0, 0] += 0.01
    elif field == "observed":
        layout.observed[0, :] = True
        layout.observed[1, :] = ~layout.observed[1, :]
    else:
        layout.test.append(layout.train.pop())
    assert read_dataset(layout.write(tmp_path / "after")).digest != before


def test_arrays_cannot_be_changed_and_the_data_set_travels(tmp_path, layout):
    dataset = read_dataset(layout.write(tmp_path / "d"))
    with pytest.raises(ValueError, match="read-only"):
        dataset.targets[0, 0] = 1
    assert pickle.loads(pickle.dumps(dataset)).digest == dataset.digest


def test_reading_takes_less_than_a_quarter_of_a_millisecond_a_clip(tmp_path):
    root = Layout(n_clips=2_000, n_train=1_500).write(tmp_path / "d", labels_as="csv")
    started = time.process_time()
    assert len(read_dataset(root).keys) == 2_000
    assert time.process_time() - started < 0.5


def test_an_artist_that_the_metadata_does_not_name_is_empty_and_without_metadata_there_are_none(tmp_path, layout):
    del layout.artists[layout.keys[3]]
    root = layout.write(tmp_path / "d")
    assert read_dataset(root).artists[3] == ""
    (root / "openmic-2018-metadata.csv").unlink()
    assert read_dataset(root).artists is None


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_tables", ["NFC", "NFD"])
@pytest.mark.parametrize("labels_as", ["npz", "csv"])
def test_names_meet_in_whichever_unicode_form_they_are_written(tmp_path, layout, on_disk, in_tables, labels_as):
    key = "0ö1_École"
    layout.keys[2], layout.train[2] = (unicodedata.normalize(form, key) for form in ("NFD", "NFC"))
    layout.artists[unicodedata.normalize(in_tables, key)] = layout.artists.pop("000002_11520")
    root = layout.write(tmp_path / "d", labels_as=labels_as)
    shutil.rmtree(root / "audio/0o\u0308")
    spelt = unicodedata.normalize(on_disk, key)
    clip = root / "audio" / spelt[:3] / f"{spelt}.ogg"
    clip.parent.mkdir()
    clip.touch()
    dataset = read_dataset(root)
    row = dataset.keys.index(key)
    assert dataset.paths[row] == clip
    assert row in dataset.train
    assert dataset.artists[row] == "artist 1"
    assert dataset.digest == read_dataset(root).digest


def test_labels_meet_in_whichever_unicode_form_and_byte_order_mark_they_are_written(tmp_path, layout):
    root = layout.write(tmp_path / "d", labels_as="csv")
    digest = read_dataset(root).digest
    for path, encoding in ((root / "class-map.json", "utf-8-sig"), (root / CSV, "utf-8")):
        path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert read_dataset(root).digest == digest
    for path, form in ((root / "class-map.json", "NFC"), (root / CSV, "NFD")):
        text = path.read_text(encoding="utf-8-sig").replace("voice", "voix élevée")
        path.write_text(unicodedata.normalize(form, text), encoding="utf-8-sig")
    assert read_dataset(root).labels == ("banjo", "cello", "voix élevée")


def test_vggish_must_fit_the_keys(tmp_path, layout):
    root = layout.write(tmp_path / "d")
    np.savez(
        root / NPZ,
        X=np.zeros((8, 128)),
        Y_true=layout.targets,
        Y_mask=layout.observed,
        sample_key=np.array(layout.keys),
    )
    with pytest.raises(ValueError, match=r"npz: X has shape \(8, 128\); the keys need"):
        read_vggish(read_dataset(root))
    (root / NPZ).unlink()
    layout.write_csv(root)
    with pytest.raises(ValueError, match="no array 'X'"):
        read_vggish(read_dataset(root))


def test_vggish_is_put_in_the_order_of_the_keys(tmp_path, layout):
    order = np.random.default_rng(0).permutation(8)
    root = layout.write(tmp_path / "d")
    expected = layout.vggish.astype(np.float32)
    layout.keys, layout.vggish = [layout.keys[row] for row in order], layout.vggish[order]
    layout.targets, layout.observed = layout.targets[order], layout.observed[order]
    layout.write_npz(root)
    found = read_vggish(read_dataset(root))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bad", [-1.0, 255.5, np.nan, np.inf, "text"])
def test_vggish_out_of_range_is_refused(tmp_path, layout, bad):
    layout.vggish = layout.vggish.astype(str if bad == "text" else np.float32)
    layout.vggish[7, 9, 127] = bad
    with pytest.raises(ValueError, match="X must hold numbers from 0 to 255; some are outside, or no numbers"):
        read_vggish(read_dataset(layout.write(tmp_path / "d")))


# What is missing


def test_labels_are_asked_for_by_both_their_names(tmp_path, layout):
    root = layout.write(tmp_path / "d")
    (root / NPZ).unlink()
    with pytest.raises(ValueError, match=rf"neither {NPZ} nor {CSV}"):
        read_dataset(root)


def test_missing_audio_is_counted_and_a_few_are_named(tmp_path, layout):
    root = layout.write(tmp_path / "d")
    for path in sorted((root / "audio/000").iterdir())[:7]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"7 of 8 clips are missing: 000/000000_3840\.ogg, .* and 2 more"):
        read_dataset(root)


# What breaks a rule


def refuse(layout, tmp_path, match, labels_as="npz"):
    with pytest.raises(ValueError, match=match):
        read_dataset(layout.write(tmp_path / "d", labels_as=labels_as))


@pytest.mark.parametrize("key", ["../../x", "a\\b", "", "..", "a\nb"])
@pytest.mark.parametrize("labels_as", ["npz", "csv"])
def test_a_key_that_is_no_plain_name_is_refused(tmp_path, layout, labels_as, key):
    root = layout.write(tmp_path / "d", labels_as=labels_as)
    layout.keys[2] = layout.train[2] = key
    layout.write_npz(root) if labels_as == "npz" else layout.write_csv(root)
    where = r"npz: sample_key\[2\]" if labels_as == "npz" else r"labels\.csv: line \d+"
    with pytest.raises(ValueError, match=rf"{where}: key {re.escape(repr(key))} is no plain name"):
        read_dataset(root)


@pytest.mark.parametrize("key", ["..a", ".hidden", "a", "Stück 1 - é音", "a:b*c?"])
def test_any_other_name_is_a_key(tmp_path, layout, key):
    layout.keys[2] = layout.train[2] = key
    assert key in read_dataset(layout.write(tmp_path / "d", labels_as="csv")).keys


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_refused(tmp_path, layout, split):
    other = layout.test if split == "train" else layout.train
    other += getattr(layout, split)
    getattr(layout, split).clear()
    refuse(layout, tmp_path, rf"split01_{split}\.csv: lists no key")


@pytest.mark.parametrize("name", ["targets", "observed", "keys"])
def test_arrays_of_unlike_shape_are_refused(tmp_path, layout, name):
    setattr(layout, name, getattr(layout, name)[:-1])
    refuse(layout, tmp_path, r"npz: Y_\w+ has shape \(\d, 3\); \d sample keys and 3 instruments need")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_mask_that_is_not_boolean_is_refused(tmp_path, layout, kind):
    layout.observed = layout.observed.astype(kind)
    refuse(layout, tmp_path, rf"npz: Y_mask has type {kind.__name__}; it must be boolean")


@pytest.mark.parametrize("missing", ["sample_key", "instrument", "relevance"])
def test_a_missing_column_of_the_label_csv_is_named(tmp_path, layout, missing):
    root = layout.write(tmp_path / "d", labels_as="csv")
    (root / CSV).write_text((root / CSV).read_text().replace(missing, "other"))
    with pytest.raises(ValueError, match=rf"labels\.csv: no column {missing}; it has .*other"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ("{}", "must be an object"),
        ('{"banjo": 0, "cello": 2}', r"the indices are \[0, 2\]; they must be 0 to 1"),
        ('{"banjo": 0, "cello": 0}', r"the indices are \[0, 0\]; they must be 0 to 1"),
    ],
)
def test_a_broken_class_map_is_refused(tmp_path, layout, text, match):
    root = layout.write(tmp_path / "d")
    (root / "class-map.json").write_text(text)
    with pytest.raises(ValueError, match=rf"class-map\.json: {match}"):
        read_dataset(root)
