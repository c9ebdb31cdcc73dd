"""Nodes whose path is a URL: download, check, make executable."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO

from dorad.launch.model import LaunchError

_CHUNK = 1 << 16
_STALL_SECONDS = 30.0


async def download(
    url: str,
    working_dir: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = 1 << 30,
    max_seconds: float = 300.0,
) -> Path:
    """Fetch `url` into `<working_dir>/build/` (with `sha256`: `build/<sha256>/`).

    The file replaces an older one in one step and only if all is well with it.

    Raises:
        LaunchError: one line: unreachable, larger than `max_bytes`, slower than `max_seconds`
            in all, another checksum than `sha256`, no room for it.
    """
    cancelled = threading.Event()
    try:
        folder = Path(working_dir, "build", *([sha256] if sha256 else []))
        target = folder / _file_name(url)
        job = _Download(url, target, sha256, max_bytes, max_seconds, cancelled)
        return await asyncio.to_thread(job.run)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    except urllib.error.HTTPError as error:
        raise LaunchError(f"cannot download {url}: HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise LaunchError(f"cannot download {url}: {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise LaunchError(f"cannot download {url}: {error or type(error).__name__}") from None


class _Download:
    """One download, in a thread: urllib blocks."""

    def __init__(
        self,
        url: str,
        target: Path,
        sha256: str | None,
        max_bytes: int,
        max_seconds: float,
        cancelled: threading.Event,
    ) -> None:
        self._url = url
        self._target = target
        self._sha256 = sha256
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._cancelled = cancelled

    def run(self) -> Path:
        folder = self._target.parent
        folder.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".download-", dir=folder)
        partial = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                found = self._receive(file)
            if self._sha256 and found != self._sha256.lower():
                raise LaunchError(
                    f"{self._url} is not what path_sha256 says: "
                    f"its sha256 is {found}, expected {self._sha256}"
                )
            partial.chmod(0o755)
            partial.replace(self._target)
        except BaseException:
            partial.unlink()
            raise
        return self._target

    def _receive(self, file: IO[bytes]) -> str:
        """Copy the body into `file`; returns its SHA-256 in hexadecimal."""
        give_up_at = time.monotonic() + self._max_seconds
        stall = min(_STALL_SECONDS, self._max_seconds)
        checksum = hashlib.sha256()
        left = self._max_bytes
        # The scheme is http or https, or the node would not be one with a URL; redirects of
        # urllib's handlers do not leave the network either.
        opener = urllib.request.build_opener()
        with opener.open(self._url, timeout=stall) as response:
            while chunk := response.read1(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise LaunchError(f"{self._url} is larger than {self._max_bytes} bytes")
                if time.monotonic() > give_up_at:
                    raise LaunchError(
                        f"{self._url} takes longer than {self._max_seconds:g} s to download"
                    )
                if self._cancelled.is_set():
                    raise LaunchError(f"the download of {self._url} is cancelled")
                checksum.update(chunk)
                file.write(chunk)
            if response.length:
                raise LaunchError(f"the download of {self._url} broke off: incomplete")
        return checksum.hexdigest()


def _file_name(url: str) -> str:
    """The last part of the URL's path, safe as a file name."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return Path(last.replace("\0", "")).name.lstrip(".") or "node"
