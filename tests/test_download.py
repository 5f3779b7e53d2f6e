"""A file comes whole and right over connections that break, from servers that cannot resume, or not at all."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from harness.data.answer import PAGE_BYTES
from harness.data.download import GOOD_GO_BYTES, ResumingDownloader
from tests.mounts import small_disk
from tests.servers import proxying, serving

CONTENT = np.random.default_rng(0).bytes(700_000)
OTHER = np.random.default_rng(1).bytes(700_000)


PAGE = b"<html>Welcome to the network of this hotel</html>"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "a.tgz.part"


@pytest.fixture
def bring(part):
    def bring(url, **how):
        ResumingDownloader(part, **{"pause_seconds": 0.0, **how})(url, part.with_name("whole"))
        return part.with_name("whole").read_bytes()

    return bring


@pytest.fixture
def through(monkeypatch):
    """Return what makes a proxy that of the environment."""

    def through(proxy):
        for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy)

    return through


def begin(part, server, *, n_bytes):
    """Leave the first bytes of a download, as a process does that is ended."""
    server.disconnects = [n_bytes]
    with pytest.raises(ConnectionError, match="attempts in a row"):
        ResumingDownloader(part, goes=1, pause_seconds=0.0)(server.url, part.with_name("whole"))
    server.log.clear()
    assert 0 < part.stat().st_size <= n_bytes


def test_a_file_comes_in_one_request_and_leaves_nothing_beside_it(part, bring):
    with serving(CONTENT) as server:
        assert bring(server.url) == CONTENT
    assert [(asked.range, asked.sent) for asked in server.log] == [(None, len(CONTENT))]
    assert [path.name for path in part.parent.iterdir()] == ["whole"]


def test_after_each_disconnection_only_the_rest_is_asked_for(bring):
    with serving(CONTENT, disconnects=[300_000, 280_000]) as server:
        assert bring(server.url) == CONTENT
    assert [asked.status for asked in server.log] == [200, 206, 206]
    assert all(asked.if_range == server.tag() for asked in server.log[1:])
    assert server.sent < 1.8 * len(CONTENT)


def test_a_later_process_goes_on_where_an_earlier_one_stopped(part, bring):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        there = part.stat().st_size
        assert bring(server.url) == CONTENT
    assert [(asked.range, asked.sent) for asked in server.log] == [(f"bytes={there}-", len(CONTENT) - there)]


def test_disconnections_without_progress_are_bounded_and_the_part_stays(part, bring):
    with serving(CONTENT, disconnects=[300_000, *[0] * 50]) as server:
        with pytest.raises(ConnectionError, match=r"4 attempts in a row .* are kept in .*a\.tgz\.part: run the same"):
            bring(server.url, goes=4)
        assert len(server.log) == 4
        server.disconnects.clear()
        assert bring(server.url) == CONTENT


def test_a_connection_that_brings_something_each_time_may_break_as_often_as_it_likes(bring):
    content = np.random.default_rng(2).bytes(6 * GOOD_GO_BYTES)
    with serving(content, disconnects=[GOOD_GO_BYTES + 400_000] * 4) as server:
        assert bring(server.url, goes=2) == content
    assert len(server.log) == 5


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_beginning(part, bring):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        server.content = OTHER
        assert bring(server.url) == OTHER
    assert [asked.status for asked in server.log] == [200]


@pytest.mark.parametrize(
    ("etag", "last_modified"), [(None, None), ('W/"weak"', None), (None, "Wed, 21 Oct 2015 07:28:00 GMT")]
)
def test_without_a_strong_etag_a_download_is_resumed_too(part, bring, etag, last_modified):
    with serving(CONTENT, etag=etag, last_modified=last_modified) as server:
        begin(part, server, n_bytes=600_000)
        assert bring(server.url) == CONTENT
    assert [(asked.status, asked.if_range) for asked in server.log] == [(206, last_modified)]


def test_without_any_validator_a_file_of_another_length_is_not_glued(part, bring):
    with serving(CONTENT, etag=None) as server:
        begin(part, server, n_bytes=600_000)
        server.content = OTHER + b"longer"
        assert bring(server.url) == OTHER + b"longer"
    assert [asked.status for asked in server.log] == [206, 200]


def test_a_server_that_sends_the_rest_of_another_file_all_the_same_is_not_believed(part, bring):
    with serving(CONTENT, heeds_if_range=False) as server:
        begin(part, server, n_bytes=600_000)
        server.content = OTHER
        assert bring(server.url) == OTHER
    assert [asked.status for asked in server.log] == [206, 200]


def test_a_server_without_ranges_is_asked_for_the_whole_again(part, bring):
    with serving(CONTENT, has_ranges=False) as server:
        begin(part, server, n_bytes=600_000)
        assert bring(server.url) == CONTENT
    assert [(asked.status, asked.sent) for asked in server.log] == [(200, len(CONTENT))]


def test_a_mirror_goes_on_with_what_came_from_elsewhere(part, bring):
    with serving(CONTENT) as server, serving(CONTENT, etag='"of the mirror"') as mirror:
        begin(part, server, n_bytes=600_000)
        assert bring(mirror.url) == CONTENT
    assert [(asked.status, asked.if_range) for asked in mirror.log] == [(206, None)]


def test_a_part_that_is_whole_asks_for_nothing(part, bring):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        part.write_bytes(CONTENT)
        assert bring(server.url) == CONTENT
    assert server.log == []


def test_a_part_of_which_nothing_is_known_is_fetched_anew(part, bring):
    part.write_bytes(OTHER[:1000])
    with serving(CONTENT) as server:
        assert bring(server.url) == CONTENT


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(part, bring):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        part.write_bytes(CONTENT + b"too much")
        assert bring(server.url) == CONTENT
    assert [asked.status for asked in server.log] == [416, 200]


def test_a_length_that_nobody_tells_is_found_out(bring):
    with serving(CONTENT, tells_length=False) as server:
        assert bring(server.url) == CONTENT


def test_an_archive_that_its_server_calls_encoded_is_taken_as_it_is(bring):
    with serving(CONTENT, headers={"Content-Encoding": "gzip"}) as server:
        assert bring(server.url) == CONTENT


def test_a_redirection_is_followed_with_the_range(part, bring):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        server.redirects["/records/1"] = server.url
        assert bring(server.url.replace("/openmic-2018-v1.0.0.tgz", "/records/1")) == CONTENT
    assert [asked.status for asked in server.log] == [302, 206]


def test_a_server_that_closes_the_connection_of_a_redirection_without_a_word_is_asked_again(part, bring):
    with serving(CONTENT, is_silent_after_redirects=True) as server:
        begin(part, server, n_bytes=600_000)
        server.redirects["/records/1"] = server.url
        assert bring(server.url.replace("/openmic-2018-v1.0.0.tgz", "/records/1"), goes=1) == CONTENT
    assert [asked.status for asked in server.log] == [302, 206]


@pytest.mark.parametrize(
    ("place", "why"), [("/records/1", "Exceeded 30 redirects"), ("ftp://a/b", "No connection adapters .* 'ftp://a/b'")]
)
def test_a_redirection_that_leads_nowhere_is_told_with_what_else_there_is(bring, place, why):
    with serving(CONTENT) as server:
        server.redirects["/records/1"] = place
        url = server.url.replace("/openmic-2018-v1.0.0.tgz", "/records/1")
        with pytest.raises(OSError, match=rf"^{url}: {why}; give another place with --mirror URL, or .*--archive"):
            bring(url)


def test_a_busy_server_is_given_time(bring):
    with serving(CONTENT, statuses=[503, 429, 200], headers={"Retry-After": "1"}) as server:
        started = time.monotonic()
        assert bring(server.url) == CONTENT
    assert time.monotonic() - started >= 2


def test_a_refusal_is_final_and_says_what_else_there_is(bring):
    refusal = pytest.raises(OSError, match=r"404 Not Found; give another place with --mirror URL, or .*--archive")
    with serving(CONTENT, statuses=[404]) as server, refusal:
        bring(server.url)
    assert len(server.log) == 1


def test_a_server_that_is_not_there_is_named(bring):
    with serving(CONTENT) as server:
        pass
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1.*2 attempts"):
        bring(server.url, goes=2)


def test_what_is_longer_than_the_archive_can_be_is_not_taken(part, bring):
    for tells_length in (True, False):
        refusal = pytest.raises(ValueError, match=r"sends more than the 600\.0 kB")
        with serving(CONTENT, tells_length=tells_length) as server, refusal:
            bring(server.url, limit=600_000)
        assert list(part.parent.iterdir()) == []


@pytest.mark.parametrize("has_ranges", [True, False])
def test_what_another_place_sends_that_is_too_long_costs_nothing_of_what_had_come(part, bring, has_ranges):
    with serving(CONTENT) as server, serving(OTHER + OTHER, has_ranges=has_ranges) as other:
        begin(part, server, n_bytes=600_000)
        there = part.stat().st_size
        with pytest.raises(ValueError, match=r"sends more than the 700\.0 kB"):
            bring(other.url, limit=len(CONTENT))
        assert bring(server.url, limit=len(CONTENT)) == CONTENT
    assert [(asked.range, asked.status) for asked in server.log] == [(f"bytes={there}-", 206)]


@pytest.mark.parametrize(
    ("kind", "tells_length", "why"),
    [
        ("text/html; charset=utf-8", True, "a web page came, 49 bytes of text/html"),
        ("application/problem+json", False, r"a web page came, application/problem\+json"),
        ("application/octet-stream", True, "another file came, of 49 bytes"),
    ],
)
@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_page_in_place_of_the_file_costs_nothing_of_what_had_come(part, bring, kind, tells_length, why, has_ranges):
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        there = part.stat().st_size
        headers = {"Content-Type": kind}
        with (
            serving(PAGE, headers=headers, tells_length=tells_length, has_ranges=has_ranges, etag=None) as portal,
            pytest.raises(ConnectionError, match=rf"{why}; .* are kept in .*: .*--mirror URL, or .*--archive"),
        ):
            bring(portal.url, goes=2)
        assert bring(server.url) == CONTENT
    assert [(asked.range, asked.status) for asked in server.log] == [(f"bytes={there}-", 206)]


def test_a_page_in_place_of_all_of_the_file_is_not_kept(part, bring):
    with (
        serving(PAGE, headers={"Content-Type": "text/html"}) as portal,
        pytest.raises(ConnectionError, match=r"a web page came, .* Nothing came: look at it in a browser, log in"),
    ):
        bring(portal.url, goes=2)
    assert list(part.parent.iterdir()) == []


def test_an_archive_that_its_server_calls_text_is_taken_if_it_is_as_long_as_no_page_is(bring):
    content = np.random.default_rng(4).bytes(PAGE_BYTES)
    with serving(content, headers={"Content-Type": "text/plain"}) as server:
        assert bring(server.url) == content


def test_an_archive_that_its_server_calls_plain_text_is_taken_though_its_length_is_not_told(bring):
    with serving(CONTENT, headers={"Content-Type": "text/plain"}, tells_length=False) as server:
        assert bring(server.url) == CONTENT


def test_room_is_asked_for_before_anything_is_written(part, bring):
    asked = []

    def refuse(missing, length):
        asked.append((missing, length))
        raise OSError("no room")

    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        there = part.stat().st_size
        with pytest.raises(OSError, match="no room"):
            bring(server.url, check_room=refuse)
    assert asked == [(len(CONTENT) - there, len(CONTENT))]
    assert part.stat().st_size == there


def test_of_a_server_without_ranges_the_room_that_the_old_part_gives_back_is_not_asked_for_again(part, bring):
    asked = []

    def refuse(missing, length):
        asked.append((missing, length))
        raise OSError("no room")

    with serving(CONTENT, has_ranges=False) as server:
        begin(part, server, n_bytes=600_000)
        there = part.stat().st_size
        with pytest.raises(OSError, match="no room"):
            bring(server.url, check_room=refuse)
        assert asked == [(len(CONTENT) - there, len(CONTENT))]
        assert part.stat().st_size == there  # another server may go on with it
        server.has_ranges = True
        assert bring(server.url) == CONTENT
    assert server.log[-1].range == f"bytes={there}-"


def test_a_server_without_ranges_that_breaks_off_early_costs_nothing_of_what_another_had_sent(part, bring):
    with serving(CONTENT) as server, serving(CONTENT, has_ranges=False, etag=None) as other:
        begin(part, server, n_bytes=600_000)
        there = part.stat().st_size
        other.disconnects = [300_000]
        with pytest.raises(ConnectionError, match="attempts in a row"):
            bring(other.url, goes=1)
        assert part.read_bytes() == CONTENT[:there]
        assert bring(server.url) == CONTENT
    assert [(asked.range, asked.status) for asked in server.log] == [(f"bytes={there}-", 206)]


def test_a_server_that_cannot_resume_and_breaks_off_each_time_is_told_as_such(part, bring):
    with serving(CONTENT, has_ranges=False, disconnects=[300_000] * 3) as server:
        with pytest.raises(
            ConnectionError,
            match=r"3 attempts .*a\.tgz\.part: the server sends everything from the beginning .* --mirror .* --archive",
        ):
            bring(server.url, goes=3)
        assert bring(server.url) == CONTENT


@pytest.mark.parametrize("same", [0, 100, 300_000, 500_000])
def test_a_file_that_begins_like_the_old_one_takes_its_place_from_where_they_differ(part, bring, same):
    other = CONTENT[:same] + OTHER[: 400_000 - min(same, 399_000)]
    with serving(CONTENT) as server:
        begin(part, server, n_bytes=600_000)
        server.content, server.disconnects = other, [350_000]
        with pytest.raises(ConnectionError, match="attempts in a row"):
            bring(server.url, goes=1)
        assert part.read_bytes() in (CONTENT[: part.stat().st_size], other[: part.stat().st_size])
        assert bring(server.url) == other


def test_a_file_that_is_the_beginning_of_the_old_one_is_no_longer_than_it_is(part, bring):
    for tells_length in (True, False):
        with serving(CONTENT) as server:
            begin(part, server, n_bytes=600_000)
            server.content, server.tells_length = CONTENT[:400_000], tells_length
            assert bring(server.url) == CONTENT[:400_000]


def test_on_a_disk_with_room_for_one_file_a_server_without_ranges_sends_it_over_the_old_part(tmp_path):
    def check_room(missing, _length):
        if missing > (free := shutil.disk_usage(tmp_path / "disk").free):
            raise OSError(f"{missing} needed, {free} free")

    with small_disk(tmp_path / "disk", n_bytes=1 << 20) as disk, serving(CONTENT, has_ranges=False) as server:
        begin(disk / "a.part", server, n_bytes=600_000)
        ResumingDownloader(disk / "a.part", pause_seconds=0.0, check_room=check_room)(server.url, disk / "whole")
        assert (disk / "whole").read_bytes() == CONTENT
    assert [asked.status for asked in server.log] == [200]


def test_a_proxy_of_the_environment_is_used(bring, through):
    with serving(CONTENT) as server, proxying() as (proxy, seen):
        through(proxy)
        assert bring(server.url) == CONTENT
    assert seen == [server.url]
    assert [asked.via for asked in server.log] == ["1.1 test"]


def test_a_proxy_that_is_not_there_is_named_without_its_password(bring, through, caplog):
    with serving() as gone, serving(CONTENT) as server:
        pass
    proxy = gone.url.rpartition("/")[0]
    through(proxy.replace("//", "//me:secret@"))
    with pytest.raises(
        ConnectionError, match=rf"no way through the proxy {proxy} \(.*refused.* check HTTPS_PROXY and HTTP_PROXY"
    ) as told:
        bring(server.url, goes=2)
    assert f"through the proxy {proxy}" in caplog.text
    assert "secret" not in f"{told.value} {caplog.text}"


@pytest.mark.parametrize(
    ("proxy", "why"),
    [("socks5://me:secret@a:1080", "Missing dependencies for SOCKS"), ("http://me:secret@a:99999", "Failed to parse")],
)
def test_a_proxy_that_cannot_be_one_is_named_without_its_password(bring, through, proxy, why):
    through(proxy)
    shown = proxy.replace("me:secret@", "")
    with (
        serving(CONTENT) as server,
        pytest.raises(OSError, match=rf"^{server.url}: {why}.*; .* another proxy than {shown} in HTTPS_PROXY") as told,
    ):
        bring(server.url)
    assert "secret" not in str(told.value)
    assert server.log == []


def test_https_goes_through_the_tunnel_of_the_https_proxy(bring, monkeypatch):
    asked = []

    def answer(listener):
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(4096).split(b"\r\n")[0])
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(ConnectionError, match="403"):
            bring("https://archive.invalid/a.tgz", goes=1)
        thread.join()
    assert asked[0].startswith(b"CONNECT archive.invalid:443 ")


def test_a_url_that_is_none_is_refused(bring):
    with pytest.raises(OSError, match=r"Perhaps you meant https://archive\.org/a\.tgz; give another place"):
        bring("archive.org/a.tgz")


def test_a_full_disk_is_said_and_what_came_is_gone_on_with(tmp_path):
    with small_disk(tmp_path / "disk", n_bytes=256 << 10) as disk, serving(CONTENT) as server:
        download = ResumingDownloader(disk / "a.part", pause_seconds=0.0)
        with pytest.raises(OSError, match=r"a\.part: No space left on device; the .* are kept: make room and run"):
            download(server.url, disk / "whole")
        there = (disk / "a.part").stat().st_size
        assert 0 < there < len(CONTENT)
        elsewhere = tmp_path / "room"
        elsewhere.mkdir()
        for file in disk.iterdir():
            (elsewhere / file.name).write_bytes(file.read_bytes())
        ResumingDownloader(elsewhere / "a.part")(server.url, elsewhere / "whole")
        assert (elsewhere / "whole").read_bytes() == CONTENT
        assert server.log[-1].range == f"bytes={there}-"


@pytest.mark.process
def test_a_killed_download_goes_on_and_sends_less(part, bring):
    script = (
        "import sys; from pathlib import Path; from harness.data.download import ResumingDownloader;"
        "ResumingDownloader(Path(sys.argv[2]))(sys.argv[1], 'never')"
    )
    content = np.random.default_rng(3).bytes(4_000_000)
    with serving(content, bytes_per_second=2e6) as server:
        with subprocess.Popen([sys.executable, "-c", script, server.url, os.fspath(part)]) as process:
            deadline = time.monotonic() + 60
            while not (part.exists() and part.stat().st_size > 500_000):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()
        there = part.stat().st_size
        server.log.clear()
        server.bytes_per_second = None
        assert bring(server.url) == content
    assert [(asked.range, asked.sent) for asked in server.log] == [(f"bytes={there}-", len(content) - there)]
