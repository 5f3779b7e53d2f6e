"""Fetch a published data set: check the disk's room, download with resume, verify the checksum, unpack.

    TO/.openmic-2018.fetch/   the archive while it downloads, and the files while they are unpacked
    TO/.openmic-2018.lock     held by the process at work
    TO/openmic-2018/          the data set, once it is complete

An interrupted fetch resumes when it is started again, from another mirror too: the release's MD5 decides in the end.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from rich.filesize import decimal
from urllib3.exceptions import HTTPError

from harness.common.files import make_directory
from harness.common.progress import Progress, quiet

logger = logging.getLogger(__name__)

MARKER = ".fetched.json"
MEGABYTE = 1_000_000
_UNPACKING = "unpacking"
_PIECE_BYTES = 1 << 16
_TIMEOUT_SECONDS = (15.0, 60.0)  # to connect, and between two pieces
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ELSEWHERE = "give another place with --mirror URL, or download it by hand and give --archive FILE"


@dataclass(frozen=True)
class Release:
    """A published archive; `root` is the folder in it, and `unpacked_bytes` an upper bound, None if unknown."""

    root: str
    archive_name: str
    url: str
    md5: str
    unpacked_bytes: int | None = None


OPENMIC_2018 = Release(
    root="openmic-2018",
    archive_name="openmic-2018-v1.0.0.tgz",
    url="https://zenodo.org/records/1432913/files/openmic-2018-v1.0.0.tgz?download=1",
    md5="e4ccf187e2bb5ab2e115416e8aafe7f4",
    unpacked_bytes=3_300_000_000,
)
"""Source: Zenodo record 1432913, which states 2.6 GB. The 20,000 clips hardly compress."""


def read_marker(folder: Path) -> dict[str, object] | None:
    """Return the record that a completed fetch leaves in a data set's folder, None without one."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


@dataclass(frozen=True)
class Fetch:
    """One data set to fetch into the directory `to`; `run` does what remains to be done.

    `archive` is a local copy, used in place of a download. `say` takes lines for the user.
    """

    release: Release
    to: Path
    archive: Path | None = None
    keeps_archive: bool = False
    say: Callable[[str], None] = logger.info
    progress: Progress = quiet
    pause_seconds: float = 2.0

    def run(self) -> Path:
        """Return the data set's directory, complete.

        Raises:
            ConnectionError: the connection broke too often; the downloaded part is kept.
            OSError: no room, no permission, or the server refuses.
            ValueError: the archive is not the published one, or something else is at the directory's place.
        """
        make_directory(self.to)
        with FileLock(self.to / f".{self.release.root}.lock"):  # of two processes, one waits
            if not os.path.lexists(self._target):
                self._fetch()
            elif (read_marker(self._target) or {}).get("md5") == self.release.md5:
                self.say(f"{self._target}: already there and complete; nothing to do")
            else:
                raise ValueError(
                    f"{self._target}: exists, but was not fetched from this archive; move it away, or inspect it with "
                    f"`python -m harness.data check {self._target}`"
                )
            shutil.rmtree(self._workspace, ignore_errors=True)
        return self._target

    @property
    def _target(self) -> Path:
        return self.to / self.release.root

    @property
    def _workspace(self) -> Path:
        return self.to / f".{self.release.root}.fetch"

    def _fetch(self) -> None:
        self._workspace.mkdir(exist_ok=True)
        shutil.rmtree(self._workspace / _UNPACKING, ignore_errors=True)  # of a killed process
        kept, downloaded = self.to / self.release.archive_name, self._workspace / self.release.archive_name
        local = self.archive or (kept if kept.is_file() else None)
        if local is None and not downloaded.exists():
            self._download(downloaded)
        archive = local or downloaded
        self._verify(archive)
        self._unpack(archive)
        if local is None and self.keeps_archive:
            archive.replace(kept)

    def _download(self, to: Path) -> None:
        release, unpacked = self.release, self.release.unpacked_bytes or 0
        if unpacked:
            self.say(f"{release.url}: downloading to {self.to}; unpacked it takes up to {decimal(unpacked)}")
        download = ResumingDownloader(
            self._workspace / f"{release.archive_name}.{release.md5}.part",
            check_room=lambda n_missing: self._check_room(n_missing + (unpacked or n_missing)),
            progress=self.progress,
            pause_seconds=self.pause_seconds,
        )
        download(release.url, to)

    def _check_room(self, needed: int) -> None:
        if (free := shutil.disk_usage(self.to).free) < needed:
            raise OSError(
                f"{self.to}: needs {decimal(needed)} more, but only {decimal(free)} are free; make room, or give "
                "another directory with --to DIR"
            )

    def _verify(self, archive: Path) -> None:
        """Compare the MD5; a downloaded file with another one is removed."""
        if not archive.is_file():
            raise FileNotFoundError(f"archive={archive}: no such file")
        self.say(f"{archive}: checking its MD5")
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found == self.release.md5:
            return
        wrong = f"has MD5 {found}, not the published archive's {self.release.md5}"
        if archive.parent == self._workspace:
            archive.unlink()
            raise ValueError(f"{self.release.url}: {wrong}; run the same command again, or {_ELSEWHERE}")
        raise ValueError(f"{archive}: {wrong}; it is another file or incomplete: move it away, or download it again")

    def _unpack(self, archive: Path) -> None:
        """Unpack beside the target, and rename once every file is on the disk."""
        size = _size(archive)
        self._check_room(self.release.unpacked_bytes or size)
        self.say(f"{archive.name}: MD5 {self.release.md5} is right; unpacking")
        scratch = self._workspace / _UNPACKING
        try:
            _report(_unpacked_to(archive, scratch), self.progress, n_bytes=size, label="unpacking")
            root = scratch / self.release.root
            if not root.is_dir():
                raise ValueError(f"{archive}: has no {self.release.root}/, so it is another data set's archive")
            marker = {"archive": self.release.archive_name, "md5": self.release.md5}
            (root / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
            os.sync()  # the files must survive a power cut that happens after the rename
            root.rename(self._target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _unpacked_to(archive: Path, to: Path) -> Iterator[int]:
    """Unpack a .tgz into a new folder; yield the position in the archive after each member.

    Raises:
        OSError: the disk is full.
        ValueError: it is no complete .tgz, or a member is unsafe, such as a device or a link that leads outside.
    """
    to.mkdir(parents=True)
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as members:
            for member in members:
                members.extract(member, to, filter="data")
                yield file.tell()
    except (tarfile.TarError, EOFError, zlib.error, BadGzipFile) as error:
        raise ValueError(f"{archive}: not a complete and safe .tgz file ({error}); nothing is unpacked") from error
    except OSError as error:
        raise OSError(f"{error.filename or to}: {error.strerror or error}; nothing of {archive} is unpacked") from error


def _report(positions: Iterable[int], progress: Progress, *, n_bytes: int, label: str) -> None:
    """Run through positions in bytes, reporting megabytes."""

    def megabytes() -> Iterator[None]:
        n_done = position = 0
        for position in positions:
            yield from [None] * (position // MEGABYTE - n_done)
            n_done = position // MEGABYTE
        if position % MEGABYTE:
            yield

    for _ in progress(megabytes(), total=-(-n_bytes // MEGABYTE), label=f"{label}, MB"):
        pass


@dataclass(frozen=True)
class ResumingDownloader:
    """Downloads one large file, resuming after interruptions.

    `part` holds the file's first bytes and survives the process. The connection may break `attempts` times in a row
    with less than a megabyte gained; the pause doubles each time. `check_room` takes the number of missing bytes and
    raises if they do not fit. requests heeds HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
    """

    part: Path
    check_room: Callable[[int], None] = lambda _n_missing: None
    progress: Progress = quiet
    attempts: int = 6
    pause_seconds: float = 2.0

    def __call__(self, url: str, to: Path) -> None:
        """Download `url` to a file, which must be on the same disk as `part`.

        Raises:
            ConnectionError: the connection broke too often; the part is kept.
            OSError: the server refuses or sends something else, or the disk is full; the part is kept.
        """
        n_failed, is_complete, session = 0, False, requests.Session()
        for scheme in ("http://", "https://"):  # some servers close a kept connection without an answer
            session.mount(scheme, HTTPAdapter(max_retries=1))
        while not is_complete:
            before = _size(self.part)
            try:
                self._attempt(session, url)
                is_complete = True
            except (requests.RequestException, HTTPError) as error:
                n_failed = 1 if _size(self.part) - before >= MEGABYTE else n_failed + 1
                self._raise_unless_transient(error, url, is_last=n_failed >= self.attempts)
                pause = self.pause_seconds * 2 ** (n_failed - 1)
                logger.warning("%s: %s; trying again in %.0f s", url, _reason(error), pause)
                time.sleep(pause)
        self.part.replace(to)

    def _attempt(self, session: requests.Session, url: str) -> None:
        """Ask for the missing bytes, and append them to the part; a server without ranges sends all of them again."""
        start = _size(self.part)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == 416 and _content_range(response) == f"*/{start}":
                return  # the part is complete
            _check_response(response, start)
            length = response.headers.get("Content-Length", "")
            n_missing = int(length) if length.isdecimal() else 0
            self.check_room(n_missing)
            _report(self._written(response), self.progress, n_bytes=n_missing, label="downloading")

    def _written(self, response: requests.Response) -> Iterator[int]:
        """Append the rest of the file to the part, or write all of it; yield the bytes written so far."""
        n_written = 0
        try:
            with self.part.open("ab" if response.status_code == 206 else "wb") as file:
                # below requests, which would decompress a .tgz that its server declares as gzip-encoded
                for piece in response.raw.stream(_PIECE_BYTES, decode_content=False):
                    n_written += file.write(piece)
                    yield n_written
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{self.part}: {reason}; it is kept: mend this and run the same command again") from error

    def _raise_unless_transient(self, error: Exception, url: str, *, is_last: bool) -> None:
        """Raise the error for the user, unless another attempt may succeed."""
        is_transient = isinstance(error, (requests.ConnectionError, requests.Timeout, HTTPError))
        is_transient &= not isinstance(error, requests.exceptions.SSLError)
        if is_transient and not is_last:
            return
        kind, remedy = (ConnectionError, "run the same command again, or ") if is_transient else (OSError, "")
        proxy = "check HTTPS_PROXY, " if isinstance(error, requests.exceptions.ProxyError) else ""
        came = f"{decimal(_size(self.part))} are kept in {self.part}" if _size(self.part) else "nothing came"
        raise kind(f"{url}: {_reason(error)}; {came}: {proxy}{remedy}{_ELSEWHERE}") from error


def _check_response(response: requests.Response, start: int) -> None:
    """Refuse a response that is not the rest of the file; the errors are requests' own.

    Raises:
        requests.ConnectionError: the server is busy.
        requests.HTTPError: the server refuses, or sends something else.
    """
    answer = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in _BUSY:
        raise requests.ConnectionError(answer)
    if response.status_code == 206 and not _content_range(response).startswith(f"{start}-"):
        raise requests.HTTPError(f"the server sends other bytes than those from {start}")
    if response.status_code == 416:
        raise requests.HTTPError(f"{answer}: the part is not of this file; remove it, unless the URL is wrong")
    if response.status_code not in {200, 206}:
        raise requests.HTTPError(answer)
    if "text/html" in response.headers.get("Content-Type", "").lower():
        raise requests.HTTPError("a web page came in place of the archive; log in if this network asks for it")


def _content_range(response: requests.Response) -> str:
    return response.headers.get("Content-Range", "").removeprefix("bytes ")


def _reason(error: BaseException) -> str:
    """Return the innermost message of an error of requests or urllib3, without a proxy's user and password."""
    nested = (getattr(error, "reason", None), *error.args)
    inner = next((other for other in nested if isinstance(other, BaseException)), None)
    text = re.sub(r"(\w+://)?\S*@|^\w+\(host=[^)]*\): ", r"\1", str(error) or type(error).__name__)
    return text.rstrip(".?") if inner is None else _reason(inner)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
