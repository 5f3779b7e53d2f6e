"""A look at a directory tells all that is in it and all that is wrong, and never ends in a traceback."""

import json
import os
import random
import shutil

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from harness.data.__main__ import app
from harness.data.check import check_directory
from harness.data.check_audio import CORRUPTED_TRACKS
from harness.data.check_report import N_LISTED, lines_of
from harness.data.fetch import MARKER
from harness.data.openmic import read_dataset
from tests.support.layouts import LABELS, Layout, write_csv, write_tone
from tests.support.stores import forbid

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
    return check_directory(root, **how).problems.by_place


def told(root, **how):
    return "\n".join(lines_of(check_directory(root), **how))


def test_a_whole_directory_is_usable_and_counted(write, layout):
    root = write(layout)
    found = check_directory(root)
    assert found.is_usable
    assert found.problems.by_place == {}
    assert found.dataset.digest == read_dataset(root).digest
    assert (found.n_keys, found.n_clips) == (8, {"train": 6, "test": 2})
    assert found.audio.kinds == {(44_100, 2): 8}
    assert found.audio.seconds == (0.5, 0.5)
    assert found.audio.n_bytes == sum(path.stat().st_size for path in (root / "audio").rglob("*.ogg"))
    assert found.has_vggish
    assert set(found.artists.values()) == {f"artist {i}" for i in range(4)}


@pytest.mark.parametrize("labels_as", ["npz", "csv"])
def test_annotations_are_counted_by_split_and_side(write, layout, labels_as):
    counts = check_directory(write(layout, labels_as=labels_as)).counts
    for split, rows in (("train", slice(0, 6)), ("test", slice(6, 8))):
        for i, label in enumerate(LABELS):
            positive = layout.targets[rows, i][layout.observed[rows, i]] >= 0.5
            assert counts[split][label] == (positive.sum(), (~positive).sum())


def test_the_table_says_what_was_counted(write, layout):
    layout.observed[:] = True
    layout.targets[:] = 0.9
    layout.targets[:4, 0] = 0.1
    text = told(write(layout))
    assert "label     train +   train -    test +    test -" in text
    assert "banjo           2         4         2         0" in text
    assert "all            14         4         6         0" in text
    assert "labels    3; 24 of 24 observed, 20 positive; from openmic-2018.npz" in text
    assert "headers   8 read: 8 at 44,100 Hz stereo; 0.50 to 0.50 s" in text
    assert "artists   4\n" in text
    assert "note: of 8 clips 8 were read and none was decoded; what only decoding shows, " in text
    assert text.endswith("usable: a study can read its tables, and each clip has a file")


def test_the_command_draws_the_counts_and_ends_well(write, layout, tmp_path):
    figure = tmp_path / "figures/labels.png"
    result = CliRunner().invoke(app, ["check", str(write(layout)), "--figure", str(figure)])
    assert result.exit_code == 0, result.output
    assert f"figure    {figure}" in result.stdout
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_command_fails_where_a_study_would(write, layout, tmp_path):
    root = write(layout)
    shutil.rmtree(root / "audio")
    result = CliRunner().invoke(app, ["check", str(root), "--figure", str(tmp_path / "a.png")])
    assert result.exit_code == 1
    assert "not usable: 1 problems" in result.stdout
    assert CliRunner().invoke(app, ["check", str(root), "--figure", "a.pdf"]).exit_code == 1


def checked(place, *flags):
    """Return the command's exit code and what it says on stderr, on one line."""
    result = CliRunner().invoke(app, ["check", str(place), *flags], terminal_width=1000)
    return result.exit_code, " ".join(result.stderr.split()), result.stdout


def test_a_place_without_a_data_set_is_no_argument_to_the_command(write, layout, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    code, said, out = checked(tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert said.endswith(f"{tmp_path}/nowhere: no such directory")
    code, said, out = checked(tmp_path / "file")
    assert (code, out) == (2, "")
    assert said.endswith(f"{tmp_path}/file: is there, but is no directory")
    code, said, out = checked(tmp_path / "empty")
    assert (code, out) == (2, "")
    assert said.endswith("no class-map.json in it, so it is not the root of an OpenMIC-2018 layout")
    root = write(layout)
    code, said, out = checked(tmp_path)
    assert (code, out) == (2, "")
    assert said.endswith(f"; did you mean {root}?")


@pytest.mark.parametrize("kept", ["audio", "partitions", NPZ])
def test_a_data_set_of_which_something_is_there_is_told_of_in_full(write, layout, tmp_path, kept):
    root = write(layout)
    (tmp_path / "part").mkdir()
    (root / kept).rename(tmp_path / "part" / kept)
    code, _, out = checked(tmp_path / "part", "--figure", str(tmp_path / "a.png"))
    assert code == 1
    assert "problem: class-map.json" in out


def test_a_figure_that_cannot_be_written_is_told_with_what_holds_all_the_same(write, layout, tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "file").touch()
    root = write(layout)
    below = f"{tmp_path}/file: it, or what is above it, is a file; give a directory"
    for figure, why in ((tmp_path / "a.png", "Is a directory"), (tmp_path / "file/a.png", below)):
        code, said, out = checked(root, "--figure", str(figure))
        assert code == 1
        assert "usable: a study can read its tables" in out
        message = f"error: figure={figure}: only this could not be written ({why}); what was found is as above"
        assert said.endswith(message)


# Each broken rule, with its file and row


def test_every_missing_clip_is_named_and_a_few_are_listed(write, layout):
    layout = Layout(n_clips=30, n_train=20)
    root = write(layout)
    for key in layout.keys[:15]:
        (root / "audio/000" / f"{key}.ogg").unlink()
    assert problems_of(root) == {"missing audio": [f"000/{key}.ogg" for key in layout.keys[:15]]}
    text = told(root)
    assert "problem: missing audio, 15 of them" in text
    assert f"and {15 - N_LISTED} more; --all lists them" in text
    assert f"000/{layout.keys[14]}.ogg" not in text
    assert f"000/{layout.keys[14]}.ogg" in told(root, lists_all=True)


def test_clips_that_are_empty_or_no_sound_are_named(write, layout):
    root = write(layout)
    empty, text = (root / "audio/000" / f"{layout.keys[i]}.ogg" for i in (1, 2))
    empty.write_bytes(b"")
    text.write_text("not found")
    found = check_directory(root)
    first, second = found.problems.by_place["unreadable audio"]
    assert first == f"000/{layout.keys[1]}.ogg: empty, a file of 0 bytes"
    assert second.startswith(f"000/{layout.keys[2]}.ogg: ")
    assert not found.is_usable
    assert "problem: unreadable audio, 2 of them; a study with --skip-corrupt leaves them out" in told(root)


def test_a_recording_among_the_clips_is_told_to_be_too_long(write, layout):
    root = write(layout)
    soundfile.write(root / f"audio/000/{layout.keys[1]}.ogg", np.zeros(360_100, np.int16), 100, format="WAV")
    (said,) = problems_of(root)["unreadable audio"]
    assert said.startswith(f"000/{layout.keys[1]}.ogg: too long for a clip, 60.0 min and 1 MB decoded")


def test_a_file_among_the_clips_that_is_too_large_to_be_one_is_told(write, layout):
    root = write(layout)
    os.truncate(root / f"audio/000/{layout.keys[1]}.ogg", 300_000_000)
    (said,) = problems_of(root)["unreadable audio"]
    assert said.startswith(f"000/{layout.keys[1]}.ogg: too large for a clip, a file of 300 MB; at most 256 MB are read")


def test_all_headers_are_read_only_when_asked_for(write):
    layout = Layout(n_clips=50, n_train=40)
    root = write(layout)
    (root / "audio/000" / f"{layout.keys[1]}.ogg").write_text("not sound")
    assert check_directory(root).audio.n_read == 20
    assert check_directory(root).is_usable
    found = check_directory(root, reads_all_audio=True)
    assert found.audio.n_read == 49
    assert len(found.problems) == 1


def test_a_clip_that_is_cut_is_found_where_all_are_read(write, layout):
    root = write(layout)
    clip = root / f"audio/000/{layout.keys[1]}.ogg"
    os.truncate(clip, clip.stat().st_size - 100)
    (said,) = problems_of(root, reads_all_audio=True)["unreadable audio"]
    assert said.startswith(f"000/{layout.keys[1]}.ogg: truncated, its ")


KINDS = [
    (os.mkfifo, "not a regular file but a FIFO"),
    (os.mkdir, "not a regular file but a directory"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("make", "kind"), KINDS)
def test_what_is_named_as_a_clip_and_is_no_file_is_told_to_be_what_it_is(write, layout, make, kind):
    root = write(layout)
    clip = root / f"audio/000/{layout.keys[1]}.ogg"
    clip.unlink()
    make(clip)
    assert problems_of(root) == {"audio that cannot be opened": [f"000/{layout.keys[1]}.ogg: {kind}"]}
    assert "leaves them out" not in told(root).partition("problem:")[2]


def test_a_clip_that_may_not_be_read_cannot_be_opened(write, layout, monkeypatch):
    root = write(layout)
    forbid(monkeypatch, [root / f"audio/000/{layout.keys[1]}.ogg"])
    wrong = problems_of(root)
    assert wrong == {"audio that cannot be opened": [f"000/{layout.keys[1]}.ogg: Permission denied"]}


TABLES = ("class-map.json", NPZ, CSV, "openmic-2018-metadata.csv", "partitions/split01_train.csv")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("make", "kind"), KINDS)
@pytest.mark.parametrize("name", TABLES)
def test_what_is_named_as_a_table_and_is_no_file_is_told_to_be_what_it_is(write, layout, name, make, kind):
    root = write(layout, labels_as="csv")
    (root / name).unlink(missing_ok=True)
    make(root / name)
    (said,) = problems_of(root)[(root / name).name]
    assert kind in said
    with pytest.raises(OSError, match=kind):
        read_dataset(root)


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_clips_of_tracks_that_are_known_to_be_damaged_are_a_note(write, layout, content):
    track = sorted(CORRUPTED_TRACKS)[0]
    layout.keys[7] = layout.test[1] = f"{track}_3840"
    root = write(layout)
    (root / f"audio/{track[:3]}/{track}_3840.ogg").write_bytes(content)
    assert check_directory(root).is_usable
    assert f"note: damaged, as is known of 10 tracks: {track}_3840; studies leave them out" in told(root)


def test_sound_of_several_kinds_is_told_apart(write, layout):
    root = write(layout)
    write_tone(root / f"audio/000/{layout.keys[0]}.ogg", sample_rate=96_000, channels=8, seconds=0.25)
    assert "7 at 44,100 Hz stereo, 1 at 96,000 Hz with 8 channels; 0.25 to 0.50 s" in told(root)


def test_every_wrong_line_of_the_label_csv_is_told(write, layout):
    root = write(layout, labels_as="csv")
    path = root / CSV
    rows = path.read_text().splitlines()
    n = len(rows)
    path.write_text(
        "\n".join(
            [*rows, "k,theremin,0.5,3", f"{layout.keys[0]},voice,much,3", "k,voice,1.5,3", "k", rows[1]],
        )
    )
    wrong = problems_of(root)[CSV]
    assert f"line {n + 1}: unknown instrument 'theremin'" in wrong
    assert f"line {n + 2}: relevance 'much' is no number from 0 to 1" in wrong
    assert f"line {n + 3}: relevance '1.5' is no number from 0 to 1" in wrong
    assert f"line {n + 4}: 1 of 4 columns" in wrong
    assert any(text.startswith(f"line {n + 5}: ") and text.endswith("already on line 2") for text in wrong)


@pytest.mark.parametrize("labels_as", ["npz", "csv"])
def test_a_key_that_is_no_plain_name_is_told_in_each_file(write, layout, labels_as):
    root = write(layout)
    layout.keys[2] = layout.train[2] = "../../x"
    layout.write_csv(root)
    layout.write_npz(root)
    (root / (NPZ if labels_as == "csv" else CSV)).unlink()
    (root / "partitions/split01_train.csv").write_text("\n".join(layout.train))
    wrong = problems_of(root)
    place = "sample_key[2]: " if labels_as == "npz" else "line "
    said = [text for text in wrong[NPZ if labels_as == "npz" else CSV] if "key '../../x' is no plain name" in text]
    assert said
    assert all(text.startswith(place) for text in said)
    assert any(text.startswith("line 3: key '../../x' is no plain name") for text in wrong["split01_train.csv"])


def test_a_missing_column_is_told_with_those_that_are_there(write, layout):
    root = write(layout, labels_as="csv")
    write_csv(root / CSV, [("sample_key", "instrument"), ("a", "voice")])
    write_csv(root / "openmic-2018-metadata.csv", [("sample_key", "artist")])
    wrong = problems_of(root)
    assert wrong[CSV] == ["no column relevance; it has sample_key, instrument"]
    assert wrong["openmic-2018-metadata.csv"] == ["no column artist_name; it has sample_key, artist"]


def test_every_wrong_label_of_the_npz_is_told_by_key_and_instrument(write, layout):
    layout.targets[2, 1], layout.targets[5, 0] = 1.25, np.nan
    wrong = problems_of(write(layout))[NPZ]
    assert wrong == [
        f"key {layout.keys[2]}, cello: label 1.25 is not in 0 to 1",
        f"key {layout.keys[5]}, banjo: label nan is not in 0 to 1",
    ]


def test_every_wrong_array_of_the_npz_is_told(write, layout):
    root = write(layout)
    np.savez(
        root / NPZ,
        sample_key=np.array([*layout.keys[:7], layout.keys[0]]),
        Y_true=layout.targets.astype(str),
        Y_mask=layout.observed[:, :2].astype(int),
    )
    wrong = problems_of(root)[NPZ]
    assert wrong == [
        f"sample_key lists {layout.keys[0]} more than once",
        "Y_mask has shape (8, 2); the keys and the instruments ask for (8, 3)",
        "Y_mask has type int64; it must be boolean",
        "Y_true has type <U32; it must hold numbers",
    ]


def test_every_wrong_line_of_the_partitions_is_told(write, layout):
    layout.test = [layout.keys[0], layout.keys[6], layout.keys[6], "stranger_1"]
    wrong = problems_of(write(layout))
    assert wrong["split01_test.csv"] == [
        f"line 3: key {layout.keys[6]} is listed already on line 2",
        "line 4: key 'stranger_1' has no labels in this data set",
    ]
    assert wrong["partitions"] == [
        f"key {layout.keys[0]} is in both split01_train.csv and split01_test.csv",
        f"key {layout.keys[7]} is in neither split01_train.csv nor split01_test.csv",
    ]


def test_a_label_of_which_a_split_would_lack_a_clip_on_one_side_is_a_problem(write, layout):
    layout.observed[:6, 1:] = False
    layout.observed[3, 1] = True
    why = "of the train clips; each label needs two, one to learn from and one to validate by"
    assert problems_of(write(layout)) == {
        "labels": [f"cello is observed for 1 {why}", f"voice is observed for 0 {why}"],
    }


def test_vggish_that_is_damaged_keeps_only_those_who_hear_it_from_a_study(write, layout):
    root = write(layout)
    content = bytearray((root / NPZ).read_bytes())
    content[2000] ^= 1  # X is the first and by far the largest member
    (root / NPZ).write_bytes(content)
    found = check_directory(root)
    assert found.is_usable
    assert not found.has_vggish
    text = told(root)
    assert f"note: X in {NPZ}, which only systems that hear VGGish read: 1 wrong, as " in text
    assert "VGGish    there, but cannot be used" in text
    assert "without VGGish" not in text


def test_vggish_of_another_shape_and_none_are_notes(write, layout):
    layout.vggish = np.zeros((8, 128))
    root = write(layout)
    assert check_directory(root).is_usable
    assert f"note: X in {NPZ}, which only systems that hear VGGish read: 1 wrong, as " in told(root)
    assert "X has shape (8, 128)" in told(root)
    np.savez(root / NPZ, sample_key=np.array(layout.keys), Y_true=layout.targets, Y_mask=layout.observed)
    assert check_directory(root).is_usable
    assert "no system that hears VGGish" in told(root)


def test_a_file_that_a_study_does_not_read_is_no_obstacle(write, layout):
    root = write(layout)
    (root / CSV).write_text("sample_key,instrument,relevance\nk,theremin,2\n")
    assert check_directory(root).is_usable
    assert f"note: {CSV}, which a study does not read beside {NPZ}: 2 wrong, as line 2: unknown" in told(root)


def test_several_files_that_are_wrong_are_all_told(write, layout):
    root = write(layout)
    (root / "class-map.json").write_text(json.dumps({"banjo": 0, "cello": 0}))
    (root / NPZ).write_bytes(b"PK not a zip")
    (root / "partitions/split01_train.csv").unlink()
    wrong = problems_of(root)
    assert wrong.keys() == {"class-map.json", NPZ, "split01_train.csv"}
    assert [len(texts) for texts in wrong.values()] == [1, 1, 1]


def test_where_a_directory_came_from_is_told(write, layout):
    root = write(layout)
    (root / MARKER).write_text('{"archive": "a.tgz", "md5": "123"}')
    assert "fetched   a.tgz, md5 123" in told(root)


SMALL_FILES = ("class-map.json", NPZ, CSV, "openmic-2018-metadata.csv", "partitions/split01_train.csv", MARKER)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SMALL_FILES)
def test_no_damage_ends_in_a_traceback_and_the_verdict_is_the_reader_s(write, layout, name, seed):
    layout.vggish = layout.vggish[:, :, :1]
    root = write(layout)
    layout.write_csv(root)
    (root / MARKER).write_text('{"md5": "1"}')
    chance, whole = random.Random(seed), (root / name).read_bytes()
    for _ in range(8):
        content = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
        for _ in range(chance.choice([0, 1, 20])):
            if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
        (root / name).write_bytes(content)
        found = check_directory(root)
        assert list(lines_of(found))
        assert found.is_usable or len(found.problems)
        try:
            read_dataset(root)
        except (ValueError, OSError):
            assert not found.is_usable


@pytest.mark.parametrize("name", [*SMALL_FILES, "partitions", "audio"])
def test_a_file_where_a_folder_belongs_and_the_reverse_are_told(write, layout, name):
    root = write(layout)
    path = root / name
    if path.is_dir():
        shutil.rmtree(path)
        path.touch()
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    assert list(lines_of(check_directory(root)))
