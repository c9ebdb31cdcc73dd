"""Download a URL into an open file: in this process, or in a helper that has a network.

The helper is `python -m dorad.launch.transfer`. It reads its order, a JSON object, from standard
input, writes the body into its second descriptor, and prints the problem as a JSON string: empty if
there is none.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPMessage
    from typing import IO

_CHUNK = 1 << 16
_STALL_SECONDS = 30.0


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """A handler for `urllib.request.build_opener` that refuses to go from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request. Raises URLError if it would leave https."""
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise urllib.error.URLError(f"it redirects from https to {newurl}, which is not secure")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(
    url: str,
    descriptor: int,
    max_bytes: int,
    max_seconds: float,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """Write the body into the file; return one line with the problem, empty if there is none."""
    try:
        return _copy(url, descriptor, max_bytes, max_seconds, is_cancelled)
    except urllib.error.HTTPError as error:
        return f"cannot download {url}: HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return f"cannot download {url}: {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return f"cannot download {url}: {error or type(error).__name__}"


def _copy(
    url: str,
    descriptor: int,
    max_bytes: int,
    max_seconds: float,
    is_cancelled: Callable[[], bool],
) -> str:
    give_up_at = time.monotonic() + max_seconds
    left = max_bytes
    # The scheme is http or https: only such a path makes a node a URL node. SecureRedirects follows
    # no redirect to another scheme.
    opener = urllib.request.build_opener(SecureRedirects)
    with opener.open(url, timeout=min(_STALL_SECONDS, max_seconds)) as response:
        while chunk := response.read1(_CHUNK):
            left -= len(chunk)
            if left < 0:
                return f"{url} is larger than {max_bytes} bytes"
            if time.monotonic() > give_up_at:
                return f"{url} takes longer than {max_seconds:g} s to download"
            if is_cancelled():
                return f"the download of {url} is cancelled"
            while chunk:
                chunk = chunk[os.write(descriptor, chunk) :]
        if response.length:
            return f"the download of {url} broke off: incomplete"
    return ""


def main() -> None:
    """Run as a helper: carry out the order on standard input."""
    from dorad.launch.helper import LINK

    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    problem = transfer(
        order["url"], int(os.environ[LINK]), order["max_bytes"], order["max_seconds"]
    )
    sys.stdout.write(json.dumps(problem) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
