"""A published archive becomes a data set's directory, complete or not at all, and resumes after interruptions."""

import gzip
import hashlib
import io
import os
import re
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
from typer.testing import CliRunner

from harness.data.__main__ import app
from harness.data.fetch import MARKER, MEGABYTE, OPENMIC_2018, Fetch, ResumingDownloader
from harness.data.openmic import read_dataset
from tests.support.archives import files_below, pack, special
from tests.support.layouts import Layout
from tests.support.mounts import read_only, small_disk
from tests.support.servers import serving

ROOT = "openmic-2018"
CONTENT = np.random.default_rng(0).bytes(700_000)
PAGE = b"<html>Welcome to the network of this hotel</html>"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "a.tgz.md5.part"


@pytest.fixture
def download(part):
    def download(url, **how):
        ResumingDownloader(part, **{"pause_seconds": 0.0, **how})(url, part.with_name("whole"))
        return part.with_name("whole").read_bytes()

    return download


def begin(part, server, *, n_bytes):
    """Leave the first bytes of a download, as an interrupted process does; return their number."""
    server.disconnects = [n_bytes]
    with pytest.raises(ConnectionError, match="are kept in"):
        ResumingDownloader(part, attempts=1, pause_seconds=0.0)(server.url, part.with_name("whole"))
    server.log.clear()
    assert 0 < part.stat().st_size <= n_bytes
    return part.stat().st_size


# Download


@pytest.mark.parametrize("how", [{}, {"tells_length": False}, {"headers": {"Content-Encoding": "gzip"}}])
def test_a_file_comes_as_it_is_in_one_request_and_leaves_nothing_beside_it(part, download, how):
    with serving(CONTENT, **how) as server:
        assert download(server.url) == CONTENT
    assert [(asked.range, asked.sent) for asked in server.log] == [(None, len(CONTENT))]
    assert [path.name for path in part.parent.iterdir()] == ["whole"]


def test_after_each_disconnection_only_the_rest_is_requested(download):
    with serving(CONTENT, disconnects=[300_000, 280_000]) as server:
        assert download(server.url) == CONTENT
    assert [asked.status for asked in server.log] == [200, 206, 206]
    assert server.sent < 1.3 * len(CONTENT)


def test_a_mirror_resumes_an_earlier_process_s_download_and_reports_only_the_rest(part, download):
    content, reported = CONTENT * 5, []

    def progress(steps, /, *, total, label):
        reported.append((label, total, len(list(steps))))
        yield

    with serving(content) as server, serving(content) as mirror:
        n_bytes = begin(part, server, n_bytes=1_300_000)
        assert download(mirror.url, progress=progress) == content
    n_missing = len(content) - n_bytes
    assert [(asked.range, asked.sent) for asked in mirror.log] == [(f"bytes={n_bytes}-", n_missing)]
    n_megabytes = -(-n_missing // MEGABYTE)
    assert reported == [("downloading, MB", n_megabytes, n_megabytes)]


def test_failures_in_a_row_are_bounded_and_the_part_is_kept(part, download):
    with serving(CONTENT, disconnects=[300_000, *[0] * 50]) as server:
        with pytest.raises(ConnectionError, match=rf"^{server.url}: .* kept in .*{part.name}: run the same"):
            download(server.url, attempts=4)
        assert len(server.log) == 4
        server.disconnects.clear()
        assert download(server.url) == CONTENT


def test_a_connection_that_gains_a_megabyte_each_time_may_break_without_bound(download):
    content = CONTENT * 10
    with serving(content, disconnects=[MEGABYTE + 400_000] * 4) as server:
        assert download(server.url, attempts=2) == content
    assert len(server.log) == 5


def test_a_part_that_is_complete_is_not_downloaded_again(part, download):
    part.write_bytes(CONTENT)
    with serving(CONTENT) as server:
        assert download(server.url) == CONTENT
    assert [(asked.status, asked.sent) for asked in server.log] == [(416, 0)]


def test_a_server_without_ranges_sends_all_again(part, download):
    with serving(CONTENT, has_ranges=False) as server:
        begin(part, server, n_bytes=600_000)
        assert download(server.url) == CONTENT


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_login_page_in_place_of_the_file_does_not_harm_the_part(part, download, has_ranges):
    with serving(CONTENT) as server:
        n_bytes = begin(part, server, n_bytes=600_000)
        portal = serving(PAGE, headers={"Content-Type": "text/html; charset=utf-8"}, has_ranges=has_ranges)
        with portal as page, pytest.raises(OSError, match=r"(416|web page).* are kept in .*--mirror"):
            download(page.url)
        assert len(page.log) == 1
        assert download(server.url) == CONTENT
    assert [(asked.range, asked.status) for asked in server.log] == [(f"bytes={n_bytes}-", 206)]


def test_a_redirection_is_followed_with_the_range(part, download):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        server.redirects["/records/1"] = server.url
        assert download(server.url.replace("/openmic-2018-v1.0.0.tgz", "/records/1"), attempts=1) == CONTENT
    assert [asked.status for asked in server.log] == [302, 206]


def test_a_busy_server_is_asked_again(download):
    with serving(CONTENT, statuses=[503, 429, 200]) as server:
        assert download(server.url) == CONTENT
    assert [asked.status for asked in server.log] == [503, 429, 200]


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_final(download, status):
    with (
        serving(CONTENT, statuses=[status]) as server,
        pytest.raises(OSError, match=rf"{status} .*--mirror.*--archive"),
    ):
        download(server.url)
    assert len(server.log) == 1


def test_room_for_the_missing_bytes_is_checked_before_anything_is_written(part, download):
    def refuse(n_missing):
        raise OSError(f"no room for {n_missing}")

    with serving(CONTENT) as server:
        n_bytes = begin(part, server, n_bytes=600_000)
        with pytest.raises(OSError, match=f"^no room for {len(CONTENT) - n_bytes}$"):
            download(server.url, check_room=refuse)
    assert part.stat().st_size == n_bytes


@pytest.mark.parametrize("proxy", ["http://me:secret@127.0.0.1:1", "http://me:secret@a:99999"])
def test_a_proxy_that_fails_does_not_show_its_password(download, monkeypatch, proxy, caplog):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(OSError, match=r"^http://archive\.invalid/a\.tgz: ") as refused:
        download("http://archive.invalid/a.tgz", attempts=2)
    assert "secret" not in f"{refused.value} {caplog.text}"


# Fetch


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """Return a data set whose clips do not compress, like real ones."""
    root = Layout(n_clips=40, n_train=30).write(tmp_path_factory.mktemp("published") / ROOT)
    rng = np.random.default_rng(0)
    for path in sorted((root / "audio").rglob("*.ogg")):
        path.write_bytes(rng.bytes(20_000))
    return root


@pytest.fixture(scope="module")
def archive(layout):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        file.add(layout, arcname=ROOT)
    return packed.getvalue()


@pytest.fixture
def to(tmp_path):
    return tmp_path / "to"


@pytest.fixture
def fetching(to):
    """Return a maker of a `Fetch` of a server's archive, with the list of the lines that it reports."""

    def fetching(server, **how):
        md5 = hashlib.md5(server.content).hexdigest()
        release = replace(OPENMIC_2018, url=server.url, md5=md5, unpacked_bytes=4_000_000)
        lines = []
        return Fetch(**{"release": release, "to": to, "say": lines.append, "pause_seconds": 0.0, **how}), lines

    return fetching


def unpack(path, to):
    """Fetch a local archive."""
    release = replace(OPENMIC_2018, md5=hashlib.md5(path.read_bytes()).hexdigest(), unpacked_bytes=None)
    return Fetch(release, to, archive=path).run()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_the_fetched_files_are_the_published_ones(archive, layout, fetching, to):
    with serving(archive) as server:
        fetch, lines = fetching(server)
        place = fetch.run()
    assert place == to / ROOT
    assert read_dataset(place).digest == read_dataset(layout).digest
    assert files_below(place).keys() - {MARKER} == files_below(layout).keys()
    assert names_in(to) == [ROOT]
    assert "up to 4.0 MB" in lines[0]


def test_a_complete_data_set_is_not_fetched_again_and_leftovers_are_removed(archive, fetching, to):
    with serving(archive) as server:
        fetch, lines = fetching(server)
        place = fetch.run()
        (to / f".{ROOT}.fetch").mkdir()
        (to / f".{ROOT}.fetch/{OPENMIC_2018.archive_name}").write_bytes(archive)
        assert fetch.run() == place
        assert "complete" in lines[-1]
        assert names_in(to) == [ROOT]
        shutil.rmtree(place)
        (to / f".{ROOT}.fetch/unpacking").mkdir(parents=True)  # of a process that was killed after the download
        (to / f".{ROOT}.fetch/{OPENMIC_2018.archive_name}").write_bytes(archive)
        assert fetch.run() == place
    assert len(server.log) == 1


def test_a_data_set_of_another_origin_is_left_alone(archive, fetching):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        place = fetch.run()
        for wrong in ('{"md5": "0"}', "[]"):
            (place / MARKER).write_text(wrong)
            with pytest.raises(ValueError, match=rf"^{place}: exists"):
                fetch.run()
    assert len(server.log) == 1


def test_a_kept_archive_is_not_downloaded_again(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server, keeps_archive=True)
        place = fetch.run()
        assert (to / OPENMIC_2018.archive_name).read_bytes() == archive
        shutil.rmtree(place)
        assert read_dataset(fetch.run())
        shutil.rmtree(place)
        (to / OPENMIC_2018.archive_name).write_bytes(archive[:1000])
        with pytest.raises(ValueError, match=rf"^{to / OPENMIC_2018.archive_name}: has MD5 .* move it away"):
            fetch.run()
    assert len(server.log) == 1


def test_a_local_archive_is_used_where_it_lies_if_it_is_the_published_one(archive, fetching, tmp_path):
    mine = tmp_path / "mine.tgz"
    with serving(archive) as server:
        fetch, _ = fetching(server, archive=mine)
        with pytest.raises(FileNotFoundError, match=r"archive=.*mine\.tgz"):
            fetch.run()
        mine.write_bytes(archive[:-1])
        with pytest.raises(ValueError, match=rf"mine\.tgz: has MD5 .*{fetch.release.md5}"):
            fetch.run()
        mine.write_bytes(archive)
        assert read_dataset(fetch.run())
    assert server.log == []
    assert mine.read_bytes() == archive


def test_a_file_with_another_checksum_is_removed_and_the_right_one_then_comes(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        server.content = archive[:-10] + b"0123456789"
        wrong = hashlib.md5(server.content).hexdigest()
        with pytest.raises(ValueError, match=rf"^{server.url}: has MD5 {wrong}.*{fetch.release.md5}.*--mirror"):
            fetch.run()
        assert names_in(to / f".{ROOT}.fetch") == []
        server.content = archive
        assert read_dataset(fetch.run())


def test_an_interrupted_download_resumes_and_leftovers_of_unpacking_are_removed_first(archive, fetching, to):
    workspace = to / f".{ROOT}.fetch"
    with serving(archive, disconnects=[600_000, *[0] * 6]) as server:
        fetch, _ = fetching(server)
        with pytest.raises(ConnectionError, match="run the same command again"):
            fetch.run()
        (workspace / "unpacking/audio").mkdir(parents=True)
        (part,) = workspace.glob("*.part")
        n_bytes = part.stat().st_size
        server.log.clear()
        server.disconnects.clear()
        assert read_dataset(fetch.run())
    assert [(asked.range, asked.sent) for asked in server.log] == [(f"bytes={n_bytes}-", len(archive) - n_bytes)]
    assert names_in(to) == [ROOT]


def test_without_room_nothing_is_downloaded(archive, fetching, to):
    with serving(archive) as server:
        fetch, _ = fetching(server)
        fetch = replace(fetch, release=replace(fetch.release, unpacked_bytes=10**16))
        with pytest.raises(OSError, match=rf"^{to}: needs 10\.0 PB more.*--to DIR"):
            fetch.run()
    assert names_in(to / f".{ROOT}.fetch") == []


def test_a_file_in_place_of_the_directory_is_named(archive, fetching, tmp_path):
    (tmp_path / "file").touch()
    to = tmp_path / "file"
    with serving(archive) as server, pytest.raises(NotADirectoryError, match=rf"^{to}: "):
        fetching(server, to=to)[0].run()
    assert server.log == []


def test_of_two_fetches_at_once_one_waits_and_both_succeed(archive, fetching):
    with serving(archive, bytes_per_second=4e6) as server:
        fetches = [fetching(server)[0] for _ in range(2)]
        threads = [threading.Thread(target=fetch.run) for fetch in fetches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read_dataset(fetches[0].run())
    assert server.sent == len(archive)


# Unpacking

GOOD = (f"{ROOT}/class-map.json", b"{}")
HOSTILE = [
    (f"{ROOT}/audio/../../../outside", b"x"),
    special("../outside", tarfile.DIRTYPE),
    special(f"{ROOT}/link", tarfile.SYMTYPE, "../../outside"),
    special(f"{ROOT}/link", tarfile.LNKTYPE, "../outside"),
    special(f"{ROOT}/disk", tarfile.BLKTYPE),
]


@pytest.mark.parametrize("member", HOSTILE)
def test_a_member_that_could_touch_anything_outside_is_refused(tmp_path, to, member):
    with pytest.raises(ValueError, match=r"a\.tgz: .*nothing is unpacked"):
        unpack(pack(tmp_path / "a.tgz", [GOOD, member]), to)
    assert names_in(tmp_path) == ["a.tgz", "to"]
    assert files_below(to / f".{ROOT}.fetch") == {}


def test_only_the_root_is_kept_with_the_archive_s_times_and_harmless_modes(tmp_path, to):
    run = tarfile.TarInfo(f"./{ROOT}/run")
    run.mode, run.uid, run.mtime = 0o6777, 12345, 1_500_000_000
    members = [
        special(".", tarfile.DIRTYPE),
        GOOD,
        ("._openmic-2018", b"x"),
        ("notes/b", b"x"),
        ("/outside", b"x"),
        run,
    ]
    status = (unpack(pack(tmp_path / "a.tgz", members), to) / "run").stat()
    assert files_below(to).keys() - {f".{ROOT}.lock"} == {
        f"{ROOT}/{name}" for name in ("class-map.json", "run", MARKER)
    }
    assert status.st_mode & 0o6022 == 0
    assert (status.st_uid, status.st_mtime) == (os.getuid(), 1_500_000_000)  # the feature cache depends on the time


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, to, kept):
    path = pack(tmp_path / "a.tgz", [GOOD, *((f"{ROOT}/audio/{i}", os.urandom(3000)) for i in range(50))])
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"a\.tgz: not a complete"):
        unpack(path, to)
    assert not (to / ROOT).exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [(gzip.compress(b"not a tar", mtime=0), "not a complete"), (None, f"has no {ROOT}/")],
    ids=["no tar", "another data set"],
)
def test_a_file_that_is_not_the_archive_is_refused(tmp_path, to, content, why):
    path = pack(tmp_path / "a.tgz", [("irmas/a.wav", b"x")])
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.tgz: {why}"):
        unpack(path, to)
    assert names_in(to / f".{ROOT}.fetch") == []


# The command

REFUSED = [
    (["irmas"], "irmas.*openmic"),
    (["openmic", "--mirror", "zenodo.org/x"], "mirror=zenodo.org/x.*http://"),
    (["openmic", "--md5", "123"], "md5=123.*32"),
    (["openmic", "--archive", "x", "--mirror", "http://x/"], "archive.*--mirror"),
    (["openmic", "--archive", "x", "--keep-archive"], "archive.*--keep-archive"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_wrong_flag_is_named(arguments, message, to):
    result = CliRunner().invoke(app, ["fetch", *arguments, "--to", os.fspath(to)])
    assert result.exit_code != 0
    assert re.search(message, result.stderr)
    assert not to.exists()


def command(server, to):
    md5 = hashlib.md5(server.content).hexdigest()
    arguments = ["fetch", "openmic", "--to", to, "--mirror", server.url, "--md5", md5]
    environment = {**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.data", *map(os.fspath, arguments)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.drill
@pytest.mark.parametrize(("way", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130), (signal.SIGINT, 130)])
def test_a_command_that_was_ended_resumes_when_it_is_run_again(archive, to, way, code):
    with serving(archive, bytes_per_second=5e5) as server:
        with command(server, to) as process:
            deadline = time.monotonic() + 300
            while not any(part.stat().st_size > 200_000 for part in to.glob(f".{ROOT}.fetch/*.part")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(way)
            _, err = process.communicate(timeout=300)
        assert process.returncode == code
        assert ("run the same command again" in err) == (code == 130)
        (part,) = to.glob(f".{ROOT}.fetch/*.part")
        n_bytes = part.stat().st_size
        server.log.clear()
        server.bytes_per_second = None
        with command(server, to) as process:
            out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"python -m harness.study --data {to}/openmic-2018" in out
    assert "unpacking, MB: 1/1" in err
    assert [(asked.range, asked.sent) for asked in server.log] == [(f"bytes={n_bytes}-", len(archive) - n_bytes)]
    assert names_in(to) == [ROOT]
    assert read_dataset(to / ROOT)


# Disks


@pytest.mark.drill
def test_a_fetch_needs_no_more_room_than_it_demands(archive, layout, fetching, tmp_path):
    unpacked = sum(-(-len(text) // 4096) * 4096 for text in files_below(layout).values()) + (64 << 10)
    n_bytes = len(archive) + (8 << 10) + unpacked
    with serving(archive) as server, small_disk(tmp_path / "disk", n_bytes=n_bytes) as disk:
        fetch, _ = fetching(server, to=disk)
        assert read_dataset(replace(fetch, release=replace(fetch.release, unpacked_bytes=unpacked)).run())


@pytest.mark.drill
def test_a_full_disk_keeps_the_part_and_leaves_nothing_of_an_unpacked_archive(tmp_path, part, download):
    with small_disk(tmp_path / "disk", n_bytes=256 << 10) as disk, serving(CONTENT) as server:
        with pytest.raises(OSError, match=r"a\.part: No space left on device; it is kept"):
            ResumingDownloader(disk / "a.part", pause_seconds=0.0)(server.url, disk / "whole")
        part.write_bytes((disk / "a.part").read_bytes())
        n_bytes = part.stat().st_size
        assert download(server.url) == CONTENT
        assert server.log[-1].range == f"bytes={n_bytes}-"
        (disk / "a.part").unlink()
        archive = pack(tmp_path / "a.tgz", [(f"{ROOT}/{i}", bytes(100_000)) for i in range(10)])
        with pytest.raises(OSError, match=r"unpacking.*: No space left on device; nothing of .*a\.tgz is unpacked"):
            unpack(archive, disk)
        assert files_below(disk).keys() == {f".{ROOT}.lock"}


@pytest.mark.drill
def test_a_read_only_directory_is_named(archive, fetching, tmp_path):
    with serving(archive) as server, read_only(tmp_path / "disk") as disk:
        for to in (disk, disk / "new"):
            with pytest.raises(OSError, match=rf"Read-only file system: '{to}"):
                fetching(server, to=to)[0].run()
    assert server.log == []
