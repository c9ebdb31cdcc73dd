"""Copying what a URL names into an open file: in this process, or in a helper that has a network.

As a process, `python -m dorad.launch.transfer`, it is a helper: it reads what to do from standard
input, writes into the file that is its second descriptor, and says on standard output what went
wrong, or nothing.
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

from dorad.launch.redirects import SecureRedirects

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 16
_STALL_SECONDS = 30.0


def transfer(
    url: str,
    descriptor: int,
    max_bytes: int,
    max_seconds: float,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """Write the body into the file; return why that failed, in one line, or an empty text."""
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
    # The scheme is http or https, or the node would not be one with a URL; redirects of
    # urllib's handlers do not leave the network either.
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
    """Do what standard input asks for, as a helper."""
    from dorad.launch.helper import LINK

    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    problem = transfer(
        order["url"], int(os.environ[LINK]), order["max_bytes"], order["max_seconds"]
    )
    sys.stdout.write(json.dumps(problem) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
