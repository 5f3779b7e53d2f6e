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

from harness.data.answer import BrokenOffError, answered, check_is_no_page, opened_session
from harness.data.byte_progress import ByteProgress, ByteReport, quiet_bytes
from harness.data.origin import Origin, continues, origin_of

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
GOOD_GO_BYTES = 1 << 20
"""A go that brought this much shows that the connection is worth another `goes`."""


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
            ConnectionError: the connection broke too often, or a page came in place of the file; the part stays.
            OSError: the server refuses or cannot be asked, the disk is full, or the part cannot be written.
            ValueError: the file is longer than `limit`; if that is told beforehand, the part stays.
        """
        with opened_session() as session, self.progress(Path(self.part).stem) as report:
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
            except BrokenOffError as error:
                barren = 1 if _size(self.part) - before >= GOOD_GO_BYTES else barren + 1
                if barren >= self.goes:
                    came = _size(self.part)
                    kept = f"The {decimal(came)} that came are kept in {self.part}" if came else "Nothing came"
                    raise ConnectionError(
                        f"{url}: {error}; {barren} attempts in a row brought next to nothing new. {kept}: "
                        f"{error.remedy}"
                    ) from error
                pause = max(error.pause_seconds, self.pause_seconds * 2 ** (barren - 1))
                logger.warning("%s: %s; going on in %.0f s", url, error, pause)
                time.sleep(pause)
            else:
                return

    def _go(self, session: requests.Session, url: str, report: ByteReport) -> None:
        """Ask for what is missing, and for all where that turns out to be of another file than what is there.

        Raises:
            BrokenOffError: it did not come to its end.
        """
        had = self._origin()
        if had is not None and had.length == _size(self.part):
            return
        if not self._ask(session, url, had, report):
            self._ask(session, url, None, report)

    def _ask(self, session: requests.Session, url: str, had: Origin | None, report: ByteReport) -> bool:
        """Bring what is missing of the file that the part is of, or all; return False if there is another file."""
        with answered(session, url, self._headers(url, had)) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return response.headers.get("Content-Range", "") == f"bytes */{_size(self.part)}"  # it is whole
            start = _size(self.part) if response.status_code == requests.codes.partial_content else 0
            origin = origin_of(response, url, start)
            if start and not continues(response, had, origin, start):
                return False
            self._receive(response, origin, start, report)
        return True

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

    def _receive(self, response: requests.Response, origin: Origin, start: int, report: ByteReport) -> None:
        check_is_no_page(response, origin, n_bytes_came=_size(self.part))
        if origin.length is not None:
            self._check_limit(origin.url, origin.length)
            self.check_room(origin.length - _size(self.part), origin.length)  # an old part gives its room back
        try:
            with self.part.open("r+b" if self.part.exists() else "w+b") as file:
                file.seek(start)
                done = self._put(response, file, origin, report)
        except OSError as error:
            raise _told_where(error, self.part) from error
        except ValueError:  # too long, which nobody had told
            self._forget()
            raise
        if origin.length is not None and done != origin.length:
            raise BrokenOffError(f"{done} of {origin.length} bytes came")

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
            raise ValueError(
                f"{url}: sends more than the {decimal(self.limit)} that the archive can have, so it is another file; "
                "check the URL"
            )

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _told_where(error: OSError, path: Path) -> OSError:
    """Return the error with the file, and for a full disk with what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        kept = f"the {decimal(_size(path))} that came are kept: make room and run the same command again"
        return OSError(f"{path}: {error.strerror}; {kept}")
    return OSError(f"{path}: {error.strerror or error}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
