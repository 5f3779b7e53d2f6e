"""One large file over HTTP, in as many goes as it takes: what has come stays, and the next go asks for the rest.

    PART         the file's first bytes
    PART.json    which file they are of: its URL, its length, and its ETag or date

pooch checks the finished file and puts it in its place; its own downloader begins again whenever the connection breaks,
so it is given this one. pypdl resumes too, but asks for the rest without saying of which file, so that one that was
changed in between is glued to the old one's beginning.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import requests
from rich.filesize import decimal
from urllib3.exceptions import HTTPError

from harness.data.byte_progress import ByteProgress, ByteReport, quiet_bytes
from harness.data.origin import Origin, continues, origin_of

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = (15.0, 60.0)
"""To connect, and between two pieces."""
GOOD_GO_BYTES = 1 << 20
"""A go that brought this much shows that the connection is worth another `goes`."""
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE_SECONDS = 60.0


class _BrokenOffError(Exception):
    """The connection broke, or the server asked for patience; another go may bring the rest."""

    def __init__(self, reason: str, *, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


@dataclass(frozen=True)
class ResumingDownloader:
    """Downloads for `pooch.retrieve`, going on where an earlier go or an earlier process stopped.

    `goes` is how often in a row the connection may break with less than 1 MiB brought; the pause before the next go
    doubles each time. `limit` is the most bytes that the file may have; `check_room` is told the bytes that are missing
    and those of the whole before any is written. Proxies are those of the environment: HTTPS_PROXY, HTTP_PROXY,
    NO_PROXY.
    """

    part: Path
    limit: int | None = None
    progress: ByteProgress = quiet_bytes
    goes: int = 6
    pause_seconds: float = 1.0
    check_room: Callable[[int, int], None] = lambda _missing, _length: None

    def __call__(self, url: str, output_file: str | os.PathLike[str], _pooch: object = None) -> None:
        """Bring the file at `url` and give it the name `output_file`, in the directory of the part.

        Raises:
            ConnectionError: the connection broke too often; the part stays.
            OSError: the server refuses, the disk is full, or the part cannot be written.
            ValueError: the URL is none, or the file is longer than `limit`.
        """
        with requests.Session() as session, self.progress(Path(self.part).stem) as report:
            self._bring(session, url, report)
        self.part.replace(output_file)
        self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _bring(self, session: requests.Session, url: str, report: ByteReport) -> None:
        """Go again until the file is whole."""
        barren = 0
        while True:
            before = _size(self.part)
            try:
                self._go(session, url, report)
            except _BrokenOffError as error:
                barren = 1 if _size(self.part) - before >= GOOD_GO_BYTES else barren + 1
                if barren >= self.goes:
                    raise ConnectionError(
                        f"{url}: {error}; {barren} attempts in a row brought next to nothing. The "
                        f"{decimal(_size(self.part))} that came are kept in {self.part}: run the same command again"
                    ) from error
                pause = max(error.pause_seconds, self.pause_seconds * 2 ** (barren - 1))
                logger.warning("%s: %s; going on in %.0f s", url, error, pause)
                time.sleep(pause)
            else:
                return

    def _go(self, session: requests.Session, url: str, report: ByteReport) -> None:
        """Ask for what is missing, and append it.

        Raises:
            _BrokenOffError: it did not come to its end.
        """
        had = self._origin()
        if had is not None and had.length == _size(self.part):
            return
        try:
            with session.get(url, headers=self._headers(url, had), stream=True, timeout=TIMEOUT_SECONDS) as response:
                if response.status_code == requests.codes.requested_range_not_satisfiable:
                    self._settle_unsatisfiable(response, url)
                    return
                _check_status(response, url)
                self._receive(response, url, had, report)
        except (requests.exceptions.InvalidProxyURL, requests.exceptions.SSLError):
            raise  # no other go would help
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, HTTPError) as error:
            raise _BrokenOffError(f"the connection broke ({_cause(error)})") from error

    def _headers(self, url: str, had: Origin | None) -> dict[str, str]:
        """Return what asks for the missing bytes of the very file whose first bytes are there."""
        headers = {"Accept-Encoding": "identity"}
        if had is not None:
            headers["Range"] = f"bytes={_size(self.part)}-"
            if had.validator and had.url == url:
                headers["If-Range"] = had.validator
        return headers

    def _origin(self) -> Origin | None:
        """Return what the part is of; without that, or with no bytes in it, there is nothing to go on with."""
        try:
            origin = Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return origin if _size(self.part) else None

    def _settle_unsatisfiable(self, response: requests.Response, url: str) -> None:
        """Take "nothing from there on" to mean that the part is whole, if the server's length says so."""
        if response.headers.get("Content-Range", "") == f"bytes */{_size(self.part)}":
            return
        self._forget()
        raise _BrokenOffError(f"{url} is shorter than what had come of it, so it starts anew")

    def _receive(self, response: requests.Response, url: str, had: Origin | None, report: ByteReport) -> None:
        start = _size(self.part) if response.status_code == requests.codes.partial_content else 0
        origin = origin_of(response, url, start)
        if start and not continues(response, had, origin, start):
            self._forget()
            raise _BrokenOffError("the file there is another one than that whose beginning had come, so it starts anew")
        if origin.length is not None:
            self._check_limit(url, origin.length)
            self.check_room(origin.length - _size(self.part), origin.length)  # an old part gives its room back
        try:
            with self.part.open("r+b" if self.part.exists() else "w+b") as file:
                file.seek(start)
                done = self._put(response, file, origin, report)
        except OSError as error:
            raise _told_where(error, self.part) from error
        if origin.length is not None and done != origin.length:
            raise _BrokenOffError(f"{done} of {origin.length} bytes came")

    def _put(self, response: requests.Response, file: BinaryIO, origin: Origin, report: ByteReport) -> int:
        """Write what comes from where the file is at; return where it ends.

        If that is its beginning, the server sends all anew: what is there stays for as long as it is the same, so that
        nothing is lost if the connection breaks before that is made up for.
        """
        done = file.tell()
        is_new = done > 0
        report(done, origin.length)
        # from below requests, which would decode a .tgz that its server calls gzip-encoded
        for piece in response.raw.stream(CHUNK_BYTES, decode_content=False):
            self._check_limit(origin.url, done + len(piece))
            if not is_new and file.read(len(piece)) != piece:
                file.seek(done)
                file.truncate()
                self._note.write_text(json.dumps(asdict(origin)), encoding="utf-8")
                is_new = True
            if is_new:
                file.write(piece)
            done += len(piece)
            report(done, origin.length)
        if done == origin.length or origin.length is None:
            file.truncate(done)
        return done

    def _check_limit(self, url: str, length: int) -> None:
        if self.limit is not None and length > self.limit:
            self._forget()
            raise ValueError(
                f"{url}: sends more than the {decimal(self.limit)} that the archive can have, so it is another file; "
                "check the URL"
            )

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _check_status(response: requests.Response, url: str) -> None:
    if response.status_code in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        pause = min(float(wait), _LONGEST_PAUSE_SECONDS) if wait.isdecimal() else 0.0
        raise _BrokenOffError(f"the server answers {response.status_code} {response.reason}", pause_seconds=pause)
    if response.status_code not in {requests.codes.ok, requests.codes.partial_content}:
        raise OSError(
            f"{url}: the server answers {response.status_code} {response.reason}; give another place with --mirror "
            "URL, or download it by hand and give --archive FILE"
        )


def _told_where(error: OSError, path: Path) -> OSError:
    """Return the error with the file, and for a full disk with what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        kept = f"the {decimal(_size(path))} that came are kept: make room and run the same command again"
        return OSError(f"{path}: {error.strerror}; {kept}")
    return OSError(f"{path}: {error.strerror or error}")


def _cause(error: BaseException) -> str:
    """Return what an error of urllib3's or of requests' says, without the others that it is wrapped in."""
    wrapped = (getattr(error, "reason", None), *error.args)
    inner = next((other for other in wrapped if isinstance(other, BaseException)), None)
    return (str(error) or type(error).__name__) if inner is None else _cause(inner)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
