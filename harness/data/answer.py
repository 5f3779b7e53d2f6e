"""One request for a file: its answer, or a sentence that says why there is none and what to do about it.

What another go may mend is a `BrokenOffError`, everything else an OSError that is the user's to settle.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from rich.filesize import decimal
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from harness.data.origin import Origin

TIMEOUT_SECONDS = (15.0, 60.0)
"""To connect, and between two pieces."""
PAGE_BYTES = 1 << 20
"""A longer text is no page: there are servers that take an archive for text."""
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE_SECONDS = 60.0
_AGAIN = "run the same command again"
_ELSEWHERE = "give another place with --mirror URL, or download it by hand and give --archive FILE"


class BrokenOffError(Exception):
    """The connection broke, or the server asked for patience; another go may bring the rest.

    `remedy` is what to do if none does.
    """

    def __init__(self, reason: str, *, remedy: str = _AGAIN, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.pause_seconds = pause_seconds


def opened_session() -> requests.Session:
    """Return a session that asks again if a server closed, without a word, the connection of its last answer.

    Some do so after a redirection, and each go would meet it anew.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=Retry(total=None, connect=0, read=1, other=0)))
    return session


@contextmanager
def answered(session: requests.Session, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """Give the answer: 200, or, if a range was asked for, 206 or 416. What breaks while it is read is told as well.

    Raises:
        BrokenOffError: the connection broke, a proxy is not there, or the server asks for patience.
        OSError: the server refuses, or cannot be asked at all.
    """
    remedy = _AGAIN
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            _check_status(response, url, asked_range="Range" in headers)
            if "Range" in headers and response.status_code == requests.codes.ok:
                remedy = f"the server sends everything from the beginning and cannot go on from there; {_ELSEWHERE}"
            yield response
    except (requests.RequestException, HTTPError) as error:
        raise _told(error, url, remedy) from error


def check_is_no_page(response: requests.Response, origin: Origin, *, n_bytes_came: int) -> None:
    """Take what cannot be the file for a broken connection, so that it does not cost what had come.

    Raises:
        BrokenOffError: it is a page, as a network sends that wants a login, or less than half of what had come.
    """
    length = origin.length
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_markup = kind.endswith(("html", "json", "xml"))
    is_short_text = length is not None and length < PAGE_BYTES and (is_markup or kind.startswith("text/"))
    if is_short_text or (is_markup and length is None):
        raise BrokenOffError(
            f"a web page came, {'' if length is None else f'{decimal(length)} of '}{kind}",
            remedy=f"look at it in a browser, log in to the network if it asks for that, and {_AGAIN}; or {_ELSEWHERE}",
        )
    if length is not None and length < n_bytes_came / 2:
        raise BrokenOffError(
            f"another file came, of {decimal(length)}",
            remedy=f"{_ELSEWHERE}; or, if it is what is kept that is of another file, remove that and {_AGAIN}",
        )


def _check_status(response: requests.Response, url: str, *, asked_range: bool) -> None:
    if response.status_code in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        pause = min(float(wait), _LONGEST_PAUSE_SECONDS) if wait.isdecimal() else 0.0
        raise BrokenOffError(f"the server answers {response.status_code} {response.reason}", pause_seconds=pause)
    if response.status_code not in ({200, 206, 416} if asked_range else {200}):
        raise OSError(f"{url}: the server answers {response.status_code} {response.reason}; {_ELSEWHERE}")


def _told(error: requests.RequestException | HTTPError, url: str, remedy: str) -> BrokenOffError | OSError:
    """Return the error as a sentence, and as one that another go may mend if it may."""
    cause = _without_password(_cause(error)).rstrip(".?")
    request = getattr(error, "request", None)
    proxy = _proxy_for(getattr(request, "url", None) or url)  # of where a redirection led
    is_broken = isinstance(error, (requests.ConnectionError, requests.Timeout, HTTPError))
    if not is_broken or isinstance(error, requests.exceptions.SSLError):
        through = f", or another proxy than {proxy} in HTTPS_PROXY and HTTP_PROXY" if proxy else ""
        return OSError(f"{url}: {cause}; {_ELSEWHERE}{through}")
    if isinstance(error, requests.exceptions.ProxyError):
        check = f"check HTTPS_PROXY and HTTP_PROXY, which name the proxy, and {_AGAIN}"
        return BrokenOffError(f"no way through the proxy {proxy} ({cause})", remedy=check)
    return BrokenOffError(f"the connection broke ({cause})", remedy=remedy)


def _proxy_for(url: str) -> str:
    """Return the address of the proxy of the environment, "" for none."""
    return _without_password(select_proxy(url, get_environ_proxies(url)) or "")


def _without_password(text: str) -> str:
    """Return a text in which no URL has a user and a password."""
    return re.sub(r"(\w+://)?\S*@", r"\1", text)


def _cause(error: BaseException) -> str:
    """Return what an error of urllib3's or of requests' says, without the others that it is wrapped in."""
    wrapped = (getattr(error, "reason", None), *error.args)
    inner = next((other for other in wrapped if isinstance(other, BaseException)), None)
    return (str(error) or type(error).__name__) if inner is None else _cause(inner)
