"""An archive is looked through before anything is written, and a directory bears its name only when it is whole."""

import gzip
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from harness.data.archive import MARKER, check_members, read_marker, unpack
from tests.archives import files_below, pack, special
from tests.layouts import Layout
from tests.mounts import small_disk

ROOT = "openmic-2018"


GOOD = (f"{ROOT}/class-map.json", b"{}")


@pytest.fixture
def open_up(tmp_path):
    """Return what looks through an archive and unpacks it, as `fetch` does."""

    def open_up(archive, to=tmp_path / "to"):
        check_members(archive, root=ROOT)
        to.mkdir(exist_ok=True)
        return unpack(archive, to, root=ROOT, marker={"md5": "0"}, scratch=to / "scratch")

    return open_up


def test_a_layout_comes_out_as_it_went_in(tmp_path, open_up):
    layout = Layout().write(tmp_path / ROOT)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(layout, arcname=ROOT)
    contents = check_members(tmp_path / "a.tgz", root=ROOT)
    unpacked = open_up(tmp_path / "a.tgz")
    expected = files_below(layout)
    assert contents.n_files == len(expected)
    assert contents.n_outside == 0
    assert contents.disk_bytes >= sum(map(len, expected.values()))
    assert unpacked == tmp_path / "to" / ROOT
    assert read_marker(unpacked) == {"md5": "0"}
    assert {name: text for name, text in files_below(unpacked).items() if name != MARKER} == expected
    assert [path.name for path in (tmp_path / "to").iterdir()] == [ROOT]


def test_times_of_change_are_the_archive_s_so_that_a_feature_store_stays_valid(tmp_path, open_up):
    unpacked = open_up(pack(tmp_path / "a.tgz", [GOOD]))
    assert (unpacked / "class-map.json").stat().st_mtime == 1_500_000_000


def test_a_leading_dot_changes_nothing(tmp_path, open_up):
    folder = special(".", tarfile.DIRTYPE)
    unpacked = open_up(pack(tmp_path / "a.tgz", [folder, (f"./{ROOT}/class-map.json", b"{}")]))
    assert (unpacked / "class-map.json").read_bytes() == b"{}"


def test_what_lies_beside_the_root_is_left_out_and_counted(tmp_path, open_up):
    archive = pack(tmp_path / "a.tgz", [GOOD, ("._openmic-2018", b"x"), ("notes/b", b"x")])
    assert check_members(archive, root=ROOT).n_outside == 2
    open_up(archive)
    assert files_below(tmp_path / "to").keys() == {f"{ROOT}/class-map.json", f"{ROOT}/{MARKER}"}


def test_no_file_becomes_executable_for_others_or_setuid(tmp_path, open_up):
    member = tarfile.TarInfo(f"{ROOT}/run")
    member.mode, member.uid = 0o6777, 12345
    unpacked = open_up(pack(tmp_path / "a.tgz", [GOOD, member]))
    status = (unpacked / "run").stat()
    assert status.st_mode & 0o6022 == 0
    assert status.st_uid == os.getuid()


HOSTILE = {
    "leads out of the folder": [
        ("../outside", b"x"),
        (f"{ROOT}/../../outside", b"x"),
        (f"{ROOT}/audio/../../../outside", b"x"),
        ("/tmp/outside", b"x"),
        special("../outside", tarfile.DIRTYPE),
    ],
    "is a link to": [
        special(f"{ROOT}/link", tarfile.SYMTYPE, "../../outside"),
        special(f"{ROOT}/link", tarfile.SYMTYPE, "/etc"),
        special(f"{ROOT}/link", tarfile.SYMTYPE, "class-map.json"),
        special(f"{ROOT}/link", tarfile.LNKTYPE, "../outside"),
        special("beside", tarfile.SYMTYPE, "/etc"),
    ],
    "is a device": [
        special(f"{ROOT}/null", tarfile.CHRTYPE),
        special(f"{ROOT}/disk", tarfile.BLKTYPE),
        special(f"{ROOT}/pipe", tarfile.FIFOTYPE),
    ],
}


@pytest.mark.parametrize(("reason", "member"), [(reason, member) for reason in HOSTILE for member in HOSTILE[reason]])
def test_a_member_that_could_touch_anything_outside_is_refused_before_anything_is_written(
    tmp_path, open_up, reason, member
):
    archive = pack(tmp_path / "a.tgz", [GOOD, member])
    with pytest.raises(ValueError, match=rf"a\.tgz: member .* {reason}"):
        open_up(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


@pytest.mark.parametrize("name", [f"{ROOT}/class-map.json", f"./{ROOT}/class-map.json"])
def test_a_file_that_is_in_it_twice_is_refused_before_anything_is_written(tmp_path, open_up, name):
    archive = pack(tmp_path / "a.tgz", [GOOD, (name, b"others")])
    with pytest.raises(ValueError, match=rf"a\.tgz: member '{name}' is in it twice"):
        open_up(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_a_folder_may_be_in_it_twice(tmp_path, open_up):
    folder = special(f"{ROOT}/audio", tarfile.DIRTYPE)
    assert (open_up(pack(tmp_path / "a.tgz", [GOOD, folder, folder])) / "audio").is_dir()


def test_unpacking_looks_at_each_member_again(tmp_path):
    """Were the archive exchanged in between, it would be refused as well, and what came before it removed."""
    archive = pack(tmp_path / "a.tgz", [GOOD, ("../outside", b"x")])
    to = tmp_path / "to"
    to.mkdir()
    with pytest.raises(ValueError, match="leads out"):
        unpack(archive, to, root=ROOT, marker={}, scratch=to / "scratch")
    assert list(to.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.9999])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, open_up, share):
    whole = pack(tmp_path / "a.tgz", [GOOD, *((f"{ROOT}/audio/{i}", os.urandom(3000)) for i in range(50))])
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(ValueError, match=r"a\.tgz: not a whole \.tgz file \(.*\); fetch it again"):
        open_up(whole)
    assert not (tmp_path / "to").exists()


def test_damage_within_is_noticed_although_tarfile_takes_it_for_the_end(tmp_path, open_up):
    plain = gzip.decompress(
        pack(tmp_path / "a.tgz", [GOOD, *((f"{ROOT}/{i}", bytes(512)) for i in range(50))]).read_bytes()
    )
    for damaged in (plain[: 512 * 20], plain[: 512 * 20] + b"?" * 512 + plain[512 * 21 :]):
        (tmp_path / "a.tgz").write_bytes(gzip.compress(damaged))
        with pytest.raises(ValueError, match=r"ends too early or is damaged after \['openmic-2018/8'\]"):
            open_up(tmp_path / "a.tgz")


def test_a_wrong_checksum_of_gzip_is_noticed(tmp_path, open_up):
    path = pack(tmp_path / "a.tgz", [GOOD])
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a whole \.tgz file \(CRC check failed"):
        open_up(path)


# without the time of day: two processes of the tests must give a test the same name
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", gzip.compress(b"not a tar", mtime=0)])
def test_what_is_no_archive_is_refused(tmp_path, open_up, content):
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tgz: not a whole \.tgz file"):
        open_up(tmp_path / "a.tgz")


def test_an_archive_of_something_else_is_refused(tmp_path, open_up):
    with pytest.raises(ValueError, match=r"holds no file below openmic-2018/"):
        open_up(pack(tmp_path / "a.tgz", [("irmas/a.wav", b"x")]))


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    archive = pack(tmp_path / "a.tgz", [(f"{ROOT}/{i}", bytes(100_000)) for i in range(10)])
    with small_disk(tmp_path / "disk", n_bytes=512 << 10) as disk:
        with pytest.raises(OSError, match=r"scratch.*: No space left on device; what was unpacked of .* is removed"):
            unpack(archive, disk, root=ROOT, marker={}, scratch=disk / "scratch")
        assert list(disk.iterdir()) == []


@pytest.mark.process
def test_a_killed_unpacking_leaves_nothing_that_is_trusted_and_is_begun_again(tmp_path, open_up):
    archive = pack(tmp_path / "a.tgz", [(f"{ROOT}/audio/{i}", bytes(100)) for i in range(6_000)])
    to = tmp_path / "to"
    to.mkdir()
    script = (
        "import sys; from pathlib import Path; from harness.data.archive import unpack; to = Path(sys.argv[2]);"
        f"unpack(Path(sys.argv[1]), to, root={ROOT!r}, marker={{}}, scratch=to / 'scratch')"
    )
    with subprocess.Popen([sys.executable, "-c", script, archive, to], cwd=Path(__file__).parents[1]) as process:
        deadline = time.monotonic() + 60
        while not (to / "scratch" / ROOT / "audio/300").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    assert [path.name for path in to.iterdir()] == ["scratch"]
    assert len(list((open_up(archive) / "audio").iterdir())) == 6_000
    assert [path.name for path in to.iterdir()] == [ROOT]
