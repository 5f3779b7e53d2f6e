"""A local server that can be made to fail."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    """One request, and the number of body bytes that answered it."""

    path: str
    range: str | None
    via: str | None = None
    status: int = 0
    sent: int = 0


@dataclass
class Server:
    """The served content and the failures, which a test may change between requests.

    Each request uses up one of `disconnects` (break off after so many bytes) and of `statuses` (answer with this one).
    """

    content: bytes
    has_ranges: bool = True
    tells_length: bool = True
    disconnects: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    bytes_per_second: float | None = None
    log: list[Asked] = field(default_factory=list)
    url: str = ""

    @property
    def sent(self):
        return sum(asked.sent for asked in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self):
        state = self.state
        self.close_connection = True
        asked = Asked(self.path, self.headers.get("Range"), self.headers.get("Via"))
        state.log.append(asked)
        if self.path in state.redirects:
            return self._answer(asked, 302, b"", {"Location": state.redirects[self.path], "Content-Length": "0"})
        if state.statuses and (status := state.statuses.pop(0)) != 200:
            return self._answer(asked, status, b"no", {"Content-Length": "2", **state.headers})
        return self._serve(asked)

    def _serve(self, asked):
        state, whole = self.state, self.state.content
        headers = {"Accept-Ranges": "bytes"} if state.has_ranges else {}
        start = self._start(asked)
        if start is not None and start >= len(whole):
            return self._answer(asked, 416, b"", {"Content-Range": f"bytes */{len(whole)}", "Content-Length": "0"})
        body = whole[start or 0 :]
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        if state.tells_length:
            headers["Content-Length"] = str(len(body))
        if state.disconnects:
            body = body[: state.disconnects.pop(0)]
        return self._answer(asked, 200 if start is None else 206, body, headers | state.headers)

    def _start(self, asked):
        """Return the first byte of a range, None for the whole file."""
        if not self.state.has_ranges or asked.range is None:
            return None
        return int(asked.range.removeprefix("bytes=").removesuffix("-"))

    def _answer(self, asked, status, body, headers):
        asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        pace = self.state.bytes_per_second
        try:
            for start in range(0, len(body), 1 << 14):
                piece = body[start : start + (1 << 14)]
                self.wfile.write(piece)
                asked.sent += len(piece)
                if pace:
                    time.sleep(len(piece) / pace)
        except OSError:  # the client is gone
            pass

    def log_message(self, *args):
        pass


@contextmanager
def serving(content=b"", **how):
    """Give a `Server` that answers every path with its content."""
    state = Server(content, **how)
    with _running(type("Handler", (_Handler,), {"state": state})) as address:
        state.url = f"http://{address}/openmic-2018-v1.0.0.tgz"
        yield state


@contextmanager
def _running(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
