"""Bringing a published data set to this machine: room checked, downloaded, verified, unpacked, in any number of goes.

TO/.openmic-2018.fetch/    what is under way: the archive or a part of it, and files that are being unpacked
TO/.openmic-2018.lock      held by the process that is at work
TO/openmic-2018/           the data set, once it is whole
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock, Timeout
from rich.filesize import decimal

from harness.data.archive import check_members, read_marker, unpack
from harness.data.byte_progress import ByteProgress, quiet_bytes
from harness.data.download import ResumingDownloader
from harness.paths import make_directory

logger = logging.getLogger(__name__)

_SCRATCH = "unpacking"


@dataclass(frozen=True)
class Release:
    """An archive that someone published: `root` is the folder in it.

    `archive_bytes` and `unpacked_bytes` are the most that they take, None where nobody can say beforehand.
    """

    root: str
    archive_name: str
    url: str
    md5: str
    archive_bytes: int | None = None
    unpacked_bytes: int | None = None


OPENMIC_2018 = Release(
    root="openmic-2018",
    archive_name="openmic-2018-v1.0.0.tgz",
    url="https://zenodo.org/records/1432913/files/openmic-2018-v1.0.0.tgz?download=1",
    md5="e4ccf187e2bb5ab2e115416e8aafe7f4",
    archive_bytes=2_700_000_000,
    unpacked_bytes=3_300_000_000,
)
"""Source: Zenodo record 1432913, which says 2.6 GB. Unpacked, 20,000 clips that hardly compress, and the labels."""


@dataclass(frozen=True)
class Fetch:
    """One data set on its way to a directory; `run` does what is not done yet.

    `archive` is a file that is there already and stays; `say` takes lines for the user.
    """

    release: Release
    to: Path
    archive: Path | None = None
    keeps_archive: bool = False
    say: Callable[[str], None] = logger.info
    progress: ByteProgress = quiet_bytes
    pause_seconds: float = 1.0

    def run(self) -> Path:
        """Return the data set's directory, when it is whole.

        Raises:
            ConnectionError: the connection broke too often; what came of the file is kept.
            OSError: no room, no permission, or a refusal by the server.
            ValueError: the archive is not the one that was published, or could write outside its folder; or something
                else bears the directory's name.
        """
        make_directory(self.to)
        with self._alone():
            if self._is_there():
                self.say(f"{self._target}: already there and whole; nothing to do")
                return self._target
            return self._bring()

    @property
    def _target(self) -> Path:
        return self.to / self.release.root

    @property
    def _workspace(self) -> Path:
        return self.to / f".{self.release.root}.fetch"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for another process that fetches to the same directory."""
        if not os.access(self.to, os.W_OK):
            raise PermissionError(f"{self.to}: cannot be written; give another directory as --to DIR")
        lock = FileLock(self.to / f".{self.release.root}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.say(f"{self.to}: waiting for another process that fetches to the same directory")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _is_there(self) -> bool:
        marker = read_marker(self._target)
        if marker is not None and marker.get("md5") == self.release.md5:
            shutil.rmtree(self._workspace, ignore_errors=True)  # of a process that was killed when all was done
            self._check_none_is_gone(marker)
            return True
        if self._target.exists() or self._target.is_symlink():
            of = "another archive" if marker else "no archive by this command"
            raise ValueError(
                f"{self._target}: is there already and comes from {of}; look at it with `python -m harness.data check "
                f"{self._target}`, and move it away if it is to be fetched"
            )
        return False

    def _check_none_is_gone(self, marker: Mapping[str, object]) -> None:
        """Refuse to call whole what was fetched and has lost files since."""
        expected = marker.get("n_files")
        found = sum(len(files) for _, _, files in os.walk(self._target)) - 1  # without the marker
        if isinstance(expected, int) and found < expected:
            raise ValueError(
                f"{self._target}: was fetched, but of its {expected:,} files only {found:,} are there now; `python -m "
                f"harness.data check {self._target}` says what a study lacks; move it away to fetch it again"
            )

    def _bring(self) -> Path:
        self._workspace.mkdir(exist_ok=True)
        shutil.rmtree(self._workspace / _SCRATCH, ignore_errors=True)  # of a process that was killed: it takes room
        for leftover in self._workspace.glob("tmp*"):  # pooch's, of a process that was killed
            leftover.unlink()
        given = self._given()
        if given is None:
            self._check_room_for_both()
            archive = self._download()
        else:
            archive = self._verified(given)
        target = self._unpack(archive)
        if given is None and self.keeps_archive:
            archive.replace(self.to / archive.name)
        shutil.rmtree(self._workspace, ignore_errors=True)
        return target

    def _given(self) -> Path | None:
        """Return the archive that need not be downloaded: the user's, or one that was kept."""
        if self.archive is not None:
            return self.archive
        kept = self.to / self.release.archive_name
        return kept if kept.is_file() else None

    def _check_room_for_both(self) -> None:
        """Say what the whole needs, and check that it is there."""
        archive, unpacked = self.release.archive_bytes, self.release.unpacked_bytes
        if archive is None or unpacked is None:
            return
        came = sum(file.stat().st_size for file in self._workspace.iterdir() if file.is_file())
        self.say(
            f"needs up to {decimal(archive + unpacked)} in {self.to} while it is unpacked ({decimal(archive)} for the "
            f"archive, {decimal(unpacked)} for the data set), and {decimal(unpacked)} afterwards; "
            f"{decimal(came)} of the archive are there"
        )
        self._check_room(max(archive - came, 0) + unpacked, "for the archive and what is in it")

    def _check_room(self, needed: int, why: str) -> None:
        free = shutil.disk_usage(self.to).free
        if free < needed:
            raise OSError(
                f"{self.to}: {decimal(needed)} more are needed {why}, and {decimal(free)} are free; make room, or give "
                "another directory as --to DIR"
            )

    def _download(self) -> Path:
        name = self.release.archive_name
        downloader = ResumingDownloader(
            self._workspace / f"{name}.part",
            limit=self.release.archive_bytes,
            progress=self.progress,
            pause_seconds=self.pause_seconds,
            check_room=self._check_room_for_download,
        )
        pooch.get_logger().setLevel(logging.WARNING)
        known = f"md5:{self.release.md5}"
        try:
            path = pooch.retrieve(
                self.release.url, known_hash=known, fname=name, path=self._workspace, downloader=downloader
            )
        except ValueError as error:
            if "hash of downloaded file" not in str(error):
                raise
            raise ValueError(
                f"{self.release.url}: {error} Run the same command again; if that ends here too, give another place "
                "with --mirror URL, or a file from elsewhere with --archive FILE"
            ) from error
        return Path(path)

    def _check_room_for_download(self, missing: int, length: int) -> None:
        unpacked = self.release.unpacked_bytes
        if unpacked is None and missing == length:  # said once; the members are counted before they are unpacked
            self.say(f"needs {decimal(length)} in {self.to} for the archive, and more than that for what is in it")
        self._check_room(missing + (unpacked or length), "for the archive and what is in it")

    def _verified(self, archive: Path) -> Path:
        if not archive.is_file():
            raise FileNotFoundError(f"archive={archive}: no such file")
        self.say(f"{archive}: checking its md5")
        found = pooch.file_hash(str(archive), alg="md5")
        if found != self.release.md5:
            mend = (
                "download it again" if archive == self.archive else "move or remove it, and fetch downloads the archive"
            )
            raise ValueError(
                f"{archive}: its md5 is {found}, that of the published archive {self.release.md5} "
                f"({decimal(archive.stat().st_size)} are there); it is another file or not whole: {mend}"
            )
        return archive

    def _unpack(self, archive: Path) -> Path:
        self.say(f"{archive.name}: md5 {self.release.md5} is right; looking through its members")
        contents = check_members(archive, root=self.release.root, progress=self.progress)
        self._check_room(contents.disk_bytes, f"to unpack {contents.n_files:,} files")
        outside = f"; {contents.n_outside} beside {self.release.root}/ are left out" if contents.n_outside else ""
        self.say(f"unpacking {contents.n_files:,} files, {decimal(contents.disk_bytes)}{outside}")
        marker = {"archive": self.release.archive_name, "md5": self.release.md5, "n_files": contents.n_files}
        return unpack(
            archive,
            self.to,
            root=self.release.root,
            marker=marker,
            scratch=self._workspace / _SCRATCH,
            progress=self.progress,
        )
