"""From an archive on a server to a study that is resumed, by the commands that the README names, at a small scale."""

import hashlib
import json
import os
import re

import pytest

from harness.study.session import _backbone
from tests.support.archives import pack
from tests.support.ast_files import random_ast
from tests.support.layouts import Layout, write_tone
from tests.support.servers import serving
from tests.support.studies import Workshop

CORRUPTED = "071826_3840"
"""A clip of one of the tracks that are known to be damaged."""


def archive_of(root, layout):
    """Write the data set as OpenMIC-2018 comes: clips of several kinds, one of them damaged, in a .tgz."""
    source = layout.write(root / "source" / "openmic-2018")
    for row, key in enumerate(layout.keys):
        kind = {"sample_rate": (22050, 44100)[row % 2], "channels": 1 + row % 2}
        write_tone(source / f"audio/{key[:3]}/{key}.ogg", hertz=(300, 1200, 4000)[row % 3], seconds=1, **kind)
    (source / f"audio/{CORRUPTED[:3]}/{CORRUPTED}.ogg").write_bytes(b"")
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    return pack(
        root / "openmic.tgz", [(path.relative_to(root / "source").as_posix(), path.read_bytes()) for path in files]
    )


@pytest.mark.drill
@pytest.mark.timeout(1500)  # it took seven minutes of two cores that had eight times as much to do
def test_from_the_archive_to_a_resumed_study_with_base384(tmp_path):
    layout = Layout(n_clips=40, n_train=32)
    layout.keys[3] = layout.train[3] = CORRUPTED
    content = archive_of(tmp_path, layout).read_bytes()
    random_ast(std=0.02, num_labels=527).save_pretrained(tmp_path / "base384")
    here = Workshop(tmp_path)
    data, backbone = str(tmp_path / "to" / "openmic-2018"), str(tmp_path / "base384")

    with serving(content, disconnects=[30_000, 50_000]) as server:
        md5 = hashlib.md5(content).hexdigest()
        output = here.run(
            here.module("harness.data", "fetch", "openmic", "--to", "to", "--mirror", server.url, "--md5", md5)
        )
    assert [asked.range for asked in server.log] == [None, "bytes=30000-", "bytes=80000-"]
    assert "IncompleteRead(30000 bytes read" in output
    assert f"check it    python -m harness.data check {data}" in output

    output = here.run(here.module("harness.data", "check", data, "--audio"))
    assert "clips     40: 32 train, 8 test" in output
    assert re.search(f"damaged.*: {CORRUPTED}; studies leave them out", output)
    assert "usable: a study can read its tables, and each clip has a file" in output

    output = here.run(here.module("harness.data", "prepare", "--data", data, "--backbone", backbone))
    assert "clips     39 of 40 ready; 40 computed" in output
    assert re.search(f"1 of tracks known to be corrupted: {CORRUPTED}", output)
    assert f"use it    python -m harness.study --space unet --data {data} --backbone {backbone}" in output

    flags = ("--epochs", "1", "--trials", "1", "--fraction", "0.1", "--fix", "mapper/kind=linear")
    command = here.command("--space", "none", "--name", "quick", "--data", data, "--backbone", backbone, *flags)
    output = here.run(command, timeout=600)
    assert "0.1 of" in output
    assert "features:" not in output  # all were prepared
    assert "1/1 trials: 1 done" in output

    output = here.run(here.command("--resume", "quick", "--trials", "2"), timeout=600)
    assert "2/2 trials: 2 done" in output
    assert [row["state"] for row in here.results("quick")] == ["done", "done"]
    tags = here.runs("quick")[0].data.tags
    assert tags["backbone_sha256"] == hashlib.sha256((tmp_path / "base384/model.safetensors").read_bytes()).hexdigest()
    assert json.loads((here.storage / "quick" / "study.json").read_text())["data"]["fraction"] == 0.1

    with (tmp_path / "base384/model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x40")  # the last byte of the last number: its sign and most of its exponent
    output = here.refused("harness.study", "--resume", "quick", "--trials", "3")
    assert re.search(r"error: resume=quick: backbone_digest is \w{12}, the study began with \w{12}", output)


def test_clips_that_are_no_sound_end_a_study_with_their_names_and_reasons(tmp_path):
    layout = Layout(n_clips=9, n_train=6)
    layout.keys[0] = layout.train[0] = CORRUPTED
    data = layout.write(tmp_path / "data")
    paths = [data / f"audio/{key[:3]}/{key}.ogg" for key in layout.keys]
    for path in paths[4:]:
        write_tone(path, sample_rate=96_000, channels=8)
    paths[0].write_bytes(b"damaged")
    paths[2].write_text("<html>not found</html>")
    paths[3].write_bytes(paths[4].read_bytes()[:-100])
    output = Workshop(tmp_path).refused("harness.study", "--space=none", "--name=bad", f"--data={data}")
    assert not (tmp_path / "studies" / "bad").exists()
    for path, reason in zip(
        paths[1:4], ("empty, a file of 0 bytes", "not readable as sound", "truncated"), strict=True
    ):
        assert f"{path.parent.name}/{path.name}: {reason}" in output
    assert "--skip-corrupt" in output
    assert CORRUPTED not in output


def test_a_machine_with_other_weights_than_the_study_began_with_runs_no_trial():
    with pytest.raises(
        ValueError, match=r"backbone ast-nano: this node has weights \w{12}, the study began with 000000"
    ):
        _backbone("ast-nano", "0" * 64, "cpu")
