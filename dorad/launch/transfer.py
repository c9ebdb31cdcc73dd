"""Download a URL into an open file, in a helper of its own: servers are not trusted.

The helper is `python -m dorad.launch.transfer`. It reads its order, a JSON object, from standard
input, writes the body into its second descriptor, and prints the problem as a JSON string: empty if
there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

_CHUNK = 1 << 16
_STALL_SECONDS = 30.0


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """A handler for `urllib.request.build_opener` that follows only to http and https.

    It refuses to go from https to http.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request. Raises URLError if it may not be followed."""
        scheme = newurl.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not http or https")
        if req.type == "https" and scheme != "https":
            raise urllib.error.URLError(f"it redirects from https to {newurl}, which is not secure")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(url: str, descriptor: int, max_bytes: int, max_seconds: float) -> str:
    """Write the body into the file; return one line with the problem, empty if there is none.

    Only for a main thread: SIGALRM ends it.
    """
    try:
        with _alarm(max_seconds):
            return _copy(url, descriptor, max_bytes, min(_STALL_SECONDS, max_seconds))
    except urllib.error.HTTPError as error:
        problem = f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        problem = str(error.reason)
    except (OSError, HTTPException, ValueError) as error:
        problem = str(error) or type(error).__name__
    return f"cannot download {url}: {' '.join(problem.split())}"


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError within the block after this time.

    A server that sends a header byte by byte never lets a read time out.
    """

    def give_up(*_: object) -> None:
        raise TimeoutError(f"it takes longer than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, give_up)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _copy(url: str, descriptor: int, max_bytes: int, stall_seconds: float) -> str:
    left = max_bytes
    # The scheme is http or https: only such a path makes a node a URL node.
    opener = urllib.request.build_opener(SecureRedirects)
    with opener.open(url, timeout=stall_seconds) as response:
        while chunk := response.read1(_CHUNK):
            left -= len(chunk)
            if left < 0:
                return f"{url} is larger than {max_bytes} bytes"
            while chunk:
                chunk = chunk[os.write(descriptor, chunk) :]
        if response.length:
            return f"the download of {url} broke off: incomplete"
    return ""


def main() -> None:
    """Run as a helper: carry out the order on standard input."""
    from dorad.launch.helper import LINK

    # Ctrl-C reaches it, too; the process that started it ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    problem = transfer(
        order["url"], int(os.environ[LINK]), order["max_bytes"], order["max_seconds"]
    )
    sys.stdout.write(json.dumps(problem) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
