"""A check reports everything in a directory and everything wrong with it, and never ends in a traceback."""

import json
import os
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from harness.data.__main__ import app
from harness.data.check import N_LISTED, Clip, check_directory, count_labels, lines_of
from harness.data.fetch import MARKER
from harness.data.formats import FORMATS
from harness.data.openmic import CORRUPTED_TRACKS, read_dataset
from tests.support.clips import forbid
from tests.support.layouts import LABELS, Layout, write_tone

NPZ, CSV = "openmic-2018.npz", "openmic-2018-aggregated-labels.csv"


@pytest.fixture
def layout():
    return Layout()


@pytest.fixture
def write(tmp_path):
    def write(layout, **how):
        root = layout.write(tmp_path / "openmic-2018", **how)
        for key in layout.keys:
            write_tone(root / "audio" / key[:3] / f"{key}.ogg")
        return root

    return write


def problems_of(root, **how):
    return {place.name: texts for place, texts in check_directory(root, **how).problems.by_place.items()}


def report(root, *, lists_all=False, **how):
    return "\n".join(lines_of(check_directory(root, **how), lists_all=lists_all))


def run(place, *flags):
    """Return the command's exit code, stdout and stderr, each on one line."""
    result = CliRunner().invoke(app, ["check", str(place), *flags], terminal_width=1000)
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


def clip(root, layout, row):
    return root / f"audio/000/{layout.keys[row]}.ogg"


def test_a_complete_directory_is_usable_and_counted(write, layout):
    root = write(layout)
    found = check_directory(root)
    assert found.is_usable
    assert found.dataset.digest == read_dataset(root).digest
    assert (found.format, found.vggish) == ("openmic", "")
    assert set(found.audio.clips.values()) == {Clip(44_100, 2, 0.5, is_silent=False)}
    assert found.audio.n_bytes == sum(path.stat().st_size for path in (root / "audio").rglob("*.ogg"))
    assert found.audio.silent == ()


@pytest.mark.parametrize("labels_as", ["npz", "csv"])
def test_annotations_are_counted_by_split_and_side(write, layout, labels_as):
    counts = count_labels(check_directory(write(layout, labels_as=labels_as)).dataset)
    for split, rows in (("train", slice(0, 6)), ("test", slice(6, 8))):
        for i, label in enumerate(LABELS):
            positive = layout.targets[rows, i][layout.observed[rows, i]] >= 0.5
            assert counts[split][label] == (positive.sum(), (~positive).sum())


def test_the_report_states_the_counts(write, layout):
    layout.observed[:] = True
    layout.targets[:] = 0.9
    layout.targets[:4, 0] = 0.1
    root = write(layout)
    (root / MARKER).write_text('{"archive": "a.tgz", "md5": "123"}')
    write_tone(clip(root, layout, 0), sample_rate=96_000, channels=8, seconds=0.25)
    lines = report(root).splitlines()
    for line in (
        "clips     8: 6 train, 2 test",
        "labels    3; 24 of 24 observed, 20 positive",
        "label     train +   train -    test +    test -",
        "banjo           2         4         2         0",
        "all            14         4         6         0",
        "decoded   8: 7 at 44,100 Hz stereo, 1 at 96,000 Hz with 8 channels; 0.25 to 0.50 s",
        "artists   4",
        "VGGish    complete",
        "fetched   a.tgz, MD5 123",
    ):
        assert line in lines
    assert lines[-1].startswith("usable")


# The command


def test_the_command_draws_the_counts_only_where_it_is_asked_to(write, layout, tmp_path, monkeypatch):
    root, figure = write(layout), tmp_path / "figures/labels.png"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(root)[0] == 0
    assert list((tmp_path / "here").iterdir()) == []
    code, out, _ = run(root, "--figure", str(figure))
    assert (code, figure.read_bytes()[:4]) == (0, b"\x89PNG")
    assert str(figure) in out


def test_the_command_fails_where_a_study_would(write, layout, tmp_path):
    root = write(layout)
    shutil.rmtree(root / "audio")
    code, out, _ = run(root)
    assert code == 1
    assert "not usable: 8 problems" in out
    assert run(root, "--figure", "a.pdf")[0] != 0


@pytest.mark.parametrize("place", ["nowhere", "file", "empty", "."])
def test_a_place_without_a_data_set_is_refused_with_the_folder_that_may_be_meant(write, layout, tmp_path, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    root = write(layout)
    code, out, err = run(tmp_path / place)
    assert (code, out) == (2, "")
    assert str(tmp_path / place) in err
    assert (f"did you mean {root}?" in err) == (place == ".")


@pytest.mark.parametrize("kept", ["partitions", NPZ])
def test_a_directory_with_only_a_part_of_a_data_set_is_checked(write, layout, tmp_path, kept):
    (tmp_path / "part").mkdir()
    (write(layout) / kept).rename(tmp_path / "part" / kept)
    code, out, _ = run(tmp_path / "part")
    assert code == 1
    assert "problem: class-map.json" in out


def test_a_figure_that_cannot_be_written_does_not_hide_the_report(write, layout, tmp_path):
    (tmp_path / "folder.png").mkdir()
    code, out, err = run(write(layout), "--figure", str(tmp_path / "folder.png"))
    assert code == 1
    assert "usable: " in out
    assert f"figure={tmp_path / 'folder.png'}" in err


# Audio


def test_every_missing_clip_is_named_and_a_few_are_listed(write):
    layout = Layout(n_clips=30, n_train=20)
    root = write(layout)
    for row in range(15):
        clip(root, layout, row).unlink()
    assert problems_of(root) == {"missing audio": [f"audio/000/{key}.ogg" for key in layout.keys[:15]]}
    text = report(root)
    assert "problem: missing audio, 15 of them" in text
    assert f"and {15 - N_LISTED} more; --all" in text
    assert layout.keys[14] not in text
    assert layout.keys[14] in report(root, lists_all=True)


def test_clips_that_are_empty_or_no_sound_are_named(write, layout):
    root = write(layout)
    clip(root, layout, 1).write_bytes(b"")
    clip(root, layout, 2).write_text("not found")
    empty, text = problems_of(root)["unreadable audio"]
    assert empty.startswith(f"audio/000/{layout.keys[1]}.ogg: empty")
    assert text.startswith(f"audio/000/{layout.keys[2]}.ogg: ")
    assert "2 of them; a study with --skip-corrupt" in report(root)


def test_all_clips_are_decoded_only_on_request(write):
    layout = Layout(n_clips=50, n_train=40)
    root = write(layout)
    os.truncate(clip(root, layout, 1), clip(root, layout, 1).stat().st_size - 100)
    found = check_directory(root)
    assert (len(found.audio.clips), found.is_usable) == (20, True)
    assert "note: 20 of 50 files were examined; --audio" in report(root)
    assert "examined" not in report(root, decodes_all=True)
    code, out, _ = run(root, "--audio")
    assert code == 1
    assert f"audio/000/{layout.keys[1]}.ogg: truncated" in out


def test_a_clip_whose_mono_mix_is_silent_is_a_warning_with_its_name(write, layout):
    root = write(layout)
    tone = np.sin(np.arange(22_050) / 10).astype(np.float32)
    quiet = 2e-4 * tone
    mixes = {1: np.stack([tone, -tone], axis=1), 2: np.zeros((22_050, 1)), 3: np.stack([quiet, quiet], axis=1)}
    for row, samples in mixes.items():
        soundfile.write(clip(root, layout, row), samples, 44_100, format="WAV", subtype="PCM_16")
    silent = tuple(f"audio/000/{layout.keys[row]}.ogg" for row in (1, 2))
    assert check_directory(root).audio.silent == silent
    assert f"warning: nothing audible after the mix to mono: {', '.join(silent)}" in report(root).splitlines()
    assert run(root)[0] == 0


def test_a_clip_that_may_not_be_read_cannot_be_opened(write, layout, monkeypatch):
    root = write(layout)
    forbid(monkeypatch, clip(root, layout, 1))
    clip(root, layout, 2).unlink()
    clip(root, layout, 2).mkdir()
    reasons = {1: "Permission denied", 2: "Is a directory"}
    texts = [f"audio/000/{layout.keys[row]}.ogg: {why}" for row, why in reasons.items()]
    assert problems_of(root) == {"audio that cannot be opened": texts}


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_clip_of_a_track_that_is_known_to_be_damaged_is_a_note(write, layout, content):
    track = sorted(CORRUPTED_TRACKS)[0]
    layout.keys[7] = layout.test[1] = f"{track}_3840"
    root = write(layout)
    (root / f"audio/{track[:3]}/{track}_3840.ogg").write_bytes(content)
    assert check_directory(root).is_usable
    assert f"note: damaged, of 10 tracks known to be: {track}_3840" in report(root)


# Tables


def test_every_wrong_line_of_the_label_csv_is_listed(write, layout):
    root = write(layout, labels_as="csv")
    rows = (root / CSV).read_text().splitlines()
    n = len(rows)
    key, other = layout.keys[:2]
    bad = ["k,theremin,0.5,3", f"{key},voice,much,3", f"{other},voice,1.5,3", "k", rows[1], "..,banjo,1,3"]
    (root / CSV).write_text("\n".join([*rows, *bad]))
    wrong = problems_of(root)[CSV]
    for line, why in ((1, "theremin"), (2, "'much'"), (4, "1 of 4 columns"), (5, "first on line 2"), (6, "'..'")):
        assert any(text.startswith(f"line {n + line}: ") and why in text for text in wrong)
    assert f"key {layout.keys[1]}, voice: label 1.5 is not a probability, 0 to 1" in wrong
    assert len(wrong) == 6


def test_every_wrong_array_and_label_of_the_npz_is_listed(write, layout):
    layout.targets[2, 1], layout.targets[5, 0] = 1.25, np.nan
    root = write(layout)
    assert [text.partition(" is not")[0] for text in problems_of(root)[NPZ]] == [
        f"key {layout.keys[2]}, cello: label 1.25",
        f"key {layout.keys[5]}, banjo: label nan",
    ]
    np.savez(
        root / NPZ,
        sample_key=np.array([*layout.keys[:7], layout.keys[0]]),
        Y_true=layout.targets.astype(str),
        Y_mask=layout.observed[:, :2],
    )
    assert [text.partition(";")[0] for text in problems_of(root)[NPZ]][:3] == [
        "Y_true has type <U32",
        "Y_mask has shape (8, 2)",
        f"lists {layout.keys[0]} more than once",
    ]


def test_every_wrong_line_of_the_partitions_is_listed(write, layout):
    layout.test = [layout.keys[0], layout.keys[6], layout.keys[6], "stranger_1"]
    wrong = problems_of(write(layout))
    assert wrong["split01_test.csv"] == [
        f"line 3: key {layout.keys[6]} is listed twice, first on line 2",
        "line 4: key 'stranger_1' has no labels in this data set",
    ]
    assert wrong["openmic-2018"] == [
        f"key {layout.keys[0]} is in both the train and the test split",
        f"key {layout.keys[7]} is in neither the train nor the test split",
    ]


def test_a_label_that_a_validation_split_cannot_hold_is_a_problem(write, layout):
    layout.observed[:6, 1:] = False
    layout.observed[3, 1] = True
    assert [text.partition(" of")[0] for text in problems_of(write(layout))[NPZ]] == [
        "cello is observed for 1",
        "voice is observed for 0",
    ]


def test_several_wrong_files_are_each_listed_once(write, layout):
    root = write(layout)
    (root / "class-map.json").write_text(json.dumps({"banjo": 0, "cello": 0}))
    (root / NPZ).write_bytes(b"PK not a zip")
    (root / "partitions/split01_train.csv").unlink()
    wrong = problems_of(root)
    assert wrong.keys() == {"class-map.json", NPZ, "split01_train.csv"}


def damage(root, layout):
    content = bytearray((root / NPZ).read_bytes())
    content[2000] ^= 1  # X is the first and by far the largest member
    (root / NPZ).write_bytes(content)


def reshape(root, layout):
    layout.vggish = np.zeros((8, 128))
    layout.write_npz(root)


def remove(root, layout):
    np.savez(root / NPZ, sample_key=np.array(layout.keys), Y_true=layout.targets, Y_mask=layout.observed)


@pytest.mark.parametrize(
    ("spoil", "fact", "why"),
    [(damage, "cannot be used", "CRC"), (reshape, "cannot be used", "(8, 128)"), (remove, "none", "without")],
)
def test_vggish_that_cannot_be_used_is_a_note(write, layout, spoil, fact, why):
    root = write(layout)
    spoil(root, layout)
    assert check_directory(root).is_usable
    lines = report(root).splitlines()
    assert f"VGGish    {fact}" in lines
    (note,) = (line for line in lines if "no systems with VGGish input" in line)
    assert note.startswith("note: ")
    assert why in note


SMALL_FILES = ("class-map.json", NPZ, CSV, "openmic-2018-metadata.csv", "partitions/split01_train.csv", MARKER)


@pytest.mark.parametrize("name", SMALL_FILES)
def test_no_damage_ends_in_a_traceback_and_the_verdict_is_the_reader_s(write, layout, name):
    layout.vggish = layout.vggish[:, :, :1]
    root = write(layout, labels_as="csv" if name == CSV else "npz")
    (root / MARKER).write_text('{"md5": "1"}')
    chance, complete = random.Random(0), (root / name).read_bytes()
    for _ in range(6):
        content = bytearray(complete[: chance.choice([len(complete), chance.randrange(len(complete))])])
        for _ in range(chance.choice([0, 1, 20])):
            if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
        (root / name).write_bytes(content)
        found = check_directory(root)
        assert list(lines_of(found))
        try:
            read_dataset(root)
        except (ValueError, OSError):
            assert not found.is_usable
        else:
            assert found.is_usable


def test_a_reader_that_only_raises_is_checked_too(write, layout, monkeypatch):
    def read(root, problems):
        raise ValueError(f"{root}: no such luck")

    root = write(layout)
    monkeypatch.setattr("harness.data.check.FORMATS", {"openmic": replace(FORMATS["openmic"], read=read)})
    code, out, _ = run(root)
    assert code == 1
    assert "problem: data set no such luck" in out
