"""A published archive becomes a data set's directory, whole or not at all, and is not brought twice."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.archive import MARKER
from harness.data.fetch import OPENMIC_2018, Fetch
from harness.data.openmic import read_dataset
from tests.archives import files_below, pack, special
from tests.layouts import Layout
from tests.mounts import read_only, small_disk
from tests.servers import serving

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """Return a data set whose clips do not compress, as sound does not."""
    root = Layout(n_clips=40, n_train=30).write(tmp_path_factory.mktemp("published") / "openmic-2018")
    rng = np.random.default_rng(0)
    for path in sorted((root / "audio").rglob("*.ogg")):
        path.write_bytes(rng.bytes(20_000))
    return root


@pytest.fixture(scope="module")
def archive(layout):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        file.add(layout, arcname="openmic-2018")
    return packed.getvalue()


@pytest.fixture
def to(tmp_path):
    return tmp_path / "to"


@pytest.fixture
def fetching(to):
    """Return what makes a `Fetch` of what a server has, and the lines that it says."""

    def fetching(server, **how):
        release = replace(OPENMIC_2018, url=server.url, md5=hashlib.md5(server.content).hexdigest(), **SIZES)
        said = []
        return Fetch(**{"release": release, "to": to, "say": said.append, "pause_seconds": 0.0, **how}), said

    return fetching


SIZES = {"archive_bytes": 2_000_000, "unpacked_bytes": 4_000_000}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_what_is_fetched_is_what_was_published(archive, layout, fetching, to):
    with serving(archive) as server:
        fetch, said = fetching(server)
        place = fetch.run()
    assert place == to / "openmic-2018"
    assert read_dataset(place).digest == read_dataset(layout).digest
    assert files_below(place).keys() - {MARKER} == files_below(layout).keys()
    assert names_in(to) == ["openmic-2018"]
    assert said[0].startswith(
        f"needs up to 6.0 MB in {to} while it is unpacked (2.0 MB for the archive, 4.0 MB for the"
    )


def test_a_second_call_asks_for_nothing(archive, fetching):
    with serving(archive) as server:
        fetch, said = fetching(server)
        place = fetch.run()
        assert fetch.run() == place
    assert len(server.log) == 1
    assert said[-1] == f"{place}: already there and whole; nothing to do"


def test_what_has_lost_files_since_is_not_called_whole(archive, fetching):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        place = fetch.run()
        next(place.rglob("*.ogg")).unlink()
        with pytest.raises(ValueError, match=r"openmic-2018: was fetched, but of its \d+ files only \d+ are there now"):
            fetch.run()
    assert len(server.log) == 1


def test_what_was_unpacked_by_a_process_that_was_killed_is_gone_before_room_is_looked_for(
    archive, fetching, to, monkeypatch
):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        scratch = to / ".openmic-2018.fetch/unpacking"
        scratch.mkdir(parents=True)
        there = []
        monkeypatch.setattr(Fetch, "_check_room", lambda *_: there.append(scratch.exists()))
        fetch.run()
    assert there
    assert not any(there)


def test_what_a_process_that_was_killed_at_the_very_end_left_is_cleared_away(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        fetch.run()
        (to / ".openmic-2018.fetch").mkdir()
        (to / f".openmic-2018.fetch/{OPENMIC_2018.archive_name}").write_bytes(archive)
        fetch.run()
    assert names_in(to) == ["openmic-2018"]


def test_a_kept_archive_is_not_brought_again(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server, keeps_archive=True)
        place = fetch.run()
        assert (to / OPENMIC_2018.archive_name).read_bytes() == archive
        shutil.rmtree(place)
        assert read_dataset(fetch.run())
    assert len(server.log) == 1
    assert names_in(to) == ["openmic-2018", OPENMIC_2018.archive_name]


def test_an_archive_that_is_there_is_used_where_it_lies(archive, fetching, tmp_path):
    mine = tmp_path / "mine.tgz"
    mine.write_bytes(archive)
    with serving(archive) as server:
        fetch, _ = fetching(server, archive=mine)
        assert read_dataset(fetch.run())
    assert server.log == []
    assert mine.read_bytes() == archive


def test_a_given_archive_must_be_the_published_one(archive, fetching, tmp_path, to):
    mine = tmp_path / "mine.tgz"
    with serving(archive) as server:
        fetch, _ = fetching(server, archive=mine)
        with pytest.raises(FileNotFoundError, match=r"archive=.*mine\.tgz: no such file"):
            fetch.run()
        mine.write_bytes(archive[:-1])
        found, wanted = hashlib.md5(archive[:-1]).hexdigest(), fetch.release.md5
        with pytest.raises(ValueError, match=rf"mine\.tgz: its md5 is {found}, .* {wanted} .* download it again"):
            fetch.run()
    assert mine.exists()
    assert not (to / "openmic-2018").exists()


def test_a_part_of_the_archive_that_lies_beside_is_told_to_be_in_the_way_and_without_it_the_archive_comes(
    archive, fetching, to
):
    to.mkdir()
    mine = to / OPENMIC_2018.archive_name
    mine.write_bytes(archive[:1000])
    with serving(archive) as server:
        fetch, _ = fetching(server)
        with pytest.raises(ValueError, match=rf"^{mine}: its md5 is .*: move or remove it, and fetch downloads"):
            fetch.run()
        assert mine.stat().st_size == 1000
        mine.unlink()
        assert read_dataset(fetch.run())


def test_a_wrong_file_is_removed_with_both_checksums_told_and_the_right_one_then_comes(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        server.content = archive[:-10] + b"0123456789"
        found = hashlib.md5(server.content).hexdigest()
        with pytest.raises(
            ValueError, match=rf"{fetch.release.md5} but got {found}.*\n?.*same command again.*--mirror"
        ):
            fetch.run()
        assert names_in(to / ".openmic-2018.fetch") == []
        server.content = archive
        assert read_dataset(fetch.run())


def test_an_interrupted_download_goes_on(archive, fetching, to):
    with serving(archive, disconnects=[600_000, *[0] * 6]) as server:
        fetch, _ = fetching(server)
        with pytest.raises(ConnectionError, match="run the same command again"):
            fetch.run()
        came = (to / f".openmic-2018.fetch/{OPENMIC_2018.archive_name}.part").stat().st_size
        server.log.clear()
        server.disconnects.clear()
        assert read_dataset(fetch.run())
    assert came > 0
    assert [(asked.range, asked.sent) for asked in server.log] == [(f"bytes={came}-", len(archive) - came)]


def test_a_download_that_was_finished_is_not_repeated_when_unpacking_was_cut_off(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        to.mkdir()
        (to / ".openmic-2018.fetch/unpacking/openmic-2018/audio").mkdir(parents=True)
        (to / ".openmic-2018.fetch/tmp12345").touch()
        (to / f".openmic-2018.fetch/{OPENMIC_2018.archive_name}").write_bytes(archive)
        assert read_dataset(fetch.run())
    assert server.log == []
    assert names_in(to) == ["openmic-2018"]


@pytest.mark.parametrize("member", [("../../outside", b"x"), special("openmic-2018/x", tarfile.SYMTYPE, "/etc")])
def test_a_hostile_archive_writes_nothing(member, fetching, to, tmp_path):
    content = pack(tmp_path / "a.tgz", [("openmic-2018/class-map.json", b"{}"), member]).read_bytes()
    with serving(content) as server:
        fetch, _ = fetching(server)
        with pytest.raises(ValueError, match=r"member .* (leads out|is a link)"):
            fetch.run()
    assert names_in(to) == [".openmic-2018.fetch"]
    assert names_in(to / ".openmic-2018.fetch") == [OPENMIC_2018.archive_name]
    assert names_in(tmp_path) == ["a.tgz", "to"]


def test_a_published_archive_that_is_not_whole_is_refused(archive, fetching, to):
    with serving(archive[:-2000]) as server:
        fetch, _ = fetching(server)
        with pytest.raises(ValueError, match=r"not a whole \.tgz file"):
            fetch.run()
    assert not (to / "openmic-2018").exists()


def test_a_directory_that_this_did_not_make_is_left_alone(archive, fetching, to):
    (to / "openmic-2018").mkdir(parents=True)
    with serving(archive) as server:
        fetch, _ = fetching(server)
        with pytest.raises(
            ValueError, match=r"openmic-2018: is there already and comes from no archive .* move it away"
        ):
            fetch.run()
        (to / "openmic-2018" / MARKER).write_text('{"md5": "0"}')
        with pytest.raises(ValueError, match="comes from another archive"):
            fetch.run()
    assert server.log == []


# Room and rights


def test_without_room_nothing_is_asked_for(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        fetch = replace(fetch, release=replace(fetch.release, unpacked_bytes=10**16))
        with pytest.raises(
            OSError, match=r"to: 10\.0 PB more are needed for the archive and what is in it, and .* free"
        ):
            fetch.run()
    assert server.log == []
    assert names_in(to) == [".openmic-2018.fetch"]


def test_it_needs_no_more_room_than_it_says(archive, layout, fetching, tmp_path):
    unpacked = sum(-(-len(text) // 4096) * 4096 for text in files_below(layout).values()) + (64 << 10)
    said = len(archive) + (8 << 10) + unpacked
    with serving(archive) as server, small_disk(tmp_path / "disk", n_bytes=said) as disk:
        fetch, _ = fetching(server, to=disk)
        release = replace(fetch.release, archive_bytes=len(archive), unpacked_bytes=unpacked)
        assert read_dataset(replace(fetch, release=release).run())


def test_where_no_size_is_known_room_is_checked_once_the_server_tells_one(archive, fetching, tmp_path):
    with serving(archive) as server, small_disk(tmp_path / "disk", n_bytes=1 << 20) as disk:
        fetch, said = fetching(server, to=disk)
        fetch = replace(fetch, release=replace(fetch.release, archive_bytes=None, unpacked_bytes=None))
        with pytest.raises(OSError, match=r"disk: 1\.\d MB more are needed"):
            fetch.run()
        assert names_in(disk / ".openmic-2018.fetch") == []
    assert said == [
        f"needs {len(archive) / 1000:.1f} kB in {disk} for the archive, and more than that for what is in it"
    ]


def test_room_is_checked_again_when_the_members_were_counted(fetching, tmp_path):
    content = pack(tmp_path / "a.tgz", [("openmic-2018/zeros", bytes(5_000_000))]).read_bytes()
    with serving(content) as server, small_disk(tmp_path / "disk", n_bytes=1 << 20) as disk:
        fetch, _ = fetching(server, to=disk)
        fetch = replace(fetch, release=replace(fetch.release, archive_bytes=None, unpacked_bytes=None))
        with pytest.raises(OSError, match=r"5\.0 MB more are needed to unpack 1 files, and .* are free"):
            fetch.run()
        assert names_in(disk) == [".openmic-2018.fetch"]


def test_a_read_only_directory_is_named(archive, fetching, tmp_path):
    with serving(archive) as server, read_only(tmp_path / "disk") as disk:
        with pytest.raises(OSError, match="disk: cannot be written; give another directory"):
            fetching(server, to=disk)[0].run()
        with pytest.raises(OSError, match=r"Read-only file system: '.*disk/new'"):
            fetching(server, to=disk / "new")[0].run()
    assert server.log == []


@pytest.mark.parametrize("below", ["", "new"])
def test_a_file_where_the_directory_should_be_is_told(archive, fetching, tmp_path, below):
    (tmp_path / "file").touch()
    to = tmp_path / "file" / below
    with (
        serving(archive) as server,
        pytest.raises(NotADirectoryError, match=rf"^{to}: it, or what is above it, is a file"),
    ):
        fetching(server, to=to)[0].run()
    assert server.log == []


# Several processes, and processes that are ended


def test_of_two_at_once_one_waits_and_both_have_it(archive, fetching):
    with serving(archive, bytes_per_second=2e6) as server:
        (first, said_first), (second, said_second) = fetching(server), fetching(server)
        threads = [threading.Thread(target=fetch.run) for fetch in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read_dataset(first.run())
    assert server.sent == len(archive)
    assert sum("waiting for another process" in line for line in said_first + said_second) == 1


def command(*arguments, **how):
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.data", *map(os.fspath, arguments)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how,
    )  # fmt: skip


def run(*arguments, **how):
    with command(*arguments, **how) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.process
@pytest.mark.parametrize(("way", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)])
def test_a_command_that_was_ended_goes_on_when_it_is_typed_again(archive, to, way, code):
    with serving(archive, bytes_per_second=5e5) as server:
        asked_for = "fetch", "openmic", "--to", to, "--mirror", server.url, "--md5", hashlib.md5(archive).hexdigest()
        part = to / f".openmic-2018.fetch/{OPENMIC_2018.archive_name}.part"
        with command(*asked_for) as process:
            deadline = time.monotonic() + 60
            while not (part.exists() and part.stat().st_size > 200_000):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(way)
            _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert ("interrupted" in err and "run the same command again to go on" in err) == (way == signal.SIGTERM)
        came = part.stat().st_size
        server.log.clear()
        server.bytes_per_second = None
        status, out, err = run(*asked_for)
    assert status == 0, err
    assert f"python -m harness.study --data {to}/openmic-2018" in out
    assert f"export OPENMIC_2018={to}/openmic-2018" in out
    assert "openmic-2018-v1.0.0.tgz" in err
    assert " of " in err
    assert [(asked.range, asked.sent) for asked in server.log] == [(f"bytes={came}-", len(archive) - came)]
    assert names_in(to) == ["openmic-2018"]
    assert read_dataset(to / "openmic-2018")


@pytest.mark.process
def test_two_commands_at_once_bring_it_once(archive, to):
    with serving(archive, bytes_per_second=1e6) as server:
        asked_for = "fetch", "openmic", "--to", to, "--mirror", server.url, "--md5", hashlib.md5(archive).hexdigest()
        with command(*asked_for) as first, command(*asked_for) as second:
            told = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], told
    assert server.sent == len(archive)
    assert sum("already there and whole" in out for out, _ in told) == 1


REFUSED = [
    (["irmas"], "irmas: no data set that can be fetched; there is openmic"),
    (["openmic", "--mirror", "zenodo.org/x"], "mirror=zenodo.org/x: must be a URL that begins with http"),
    (["openmic", "--md5", "123"], "md5=123: must be 32 hexadecimal digits"),
    (["openmic", "--archive", "x", "--mirror", "http://x/"], "archive: cannot go with --mirror"),
    (["openmic", "--archive", "x", "--keep-archive"], "archive: cannot go with --keep-archive"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_wrong_flag_is_named(arguments, message, to):
    from typer.testing import CliRunner

    from harness.data_command import app

    result = CliRunner().invoke(app, ["fetch", *arguments, "--to", os.fspath(to)])
    assert result.exit_code == 1
    assert message in result.stderr
    assert not to.exists()
