"""Download nodes whose path is a URL: check, make executable, and cache them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Set
from pathlib import Path

from dorad.launch.helper import HelperHost, LocalHelpers, helper_environment
from dorad.launch.model import Command, LaunchError

MAX_BYTES = 1 << 30
"""Maximum size of one file."""
MAX_TOTAL = 4 << 30
"""Maximum size of a cache; the least recently used files are removed."""
MAX_SECONDS = 300.0

_PARTIAL = ".download-"
_GRACE_SECONDS = 10.0
"""Additional time for a helper to start and to end."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_log = logging.getLogger(__name__)


class Downloads:
    """A folder of downloaded files that only this user can change. Belongs to one event loop.

    A file with a checksum is stored in `<checksum>/`, and downloaded and checked once. A file
    without one is downloaded at each start of its node; the old one is used if that fails.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plain: bool = False,
        helpers: HelperHost | None = None,
        max_bytes: int = MAX_BYTES,
        max_total: int | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        """Cache files in `folder`, at most `max_total` bytes.

        With `plain`, files without a checksum are stored in `folder` itself; otherwise each URL has
        its own folder. `helpers` start the processes that download; without it they are children
        of this process.
        """
        self._folder = folder
        self._plain = plain
        self._helpers = LocalHelpers() if helpers is None else helpers
        self._max_bytes = max_bytes
        self._max_total = max_total
        self._max_seconds = max_seconds
        self._locks: dict[Path, asyncio.Lock] = {}
        self._checked: dict[Path, tuple[int, int, int]] = {}
        """Inode, size and time of each file when its checksum was verified."""

    async def get(self, url: str, sha256: str | None = None) -> Path:
        """Return the file of `url`, downloaded now or before.

        A new file replaces the old one atomically, and only if it is complete and correct.

        Raises:
            LaunchError: the server is unreachable, the file is too large or too slow, its checksum
                is not `sha256`, or the disk is full.
        """
        try:
            target = self._target(url, sha256)
        except ValueError as error:
            raise LaunchError(f"cannot download {url}: {error}") from None
        async with self._locks.setdefault(target, asyncio.Lock()):
            try:
                if sha256 is not None and await asyncio.to_thread(self._is_right, target, sha256):
                    _log.debug("%s is cached: %s", url, target)
                    _mark_used(target.parent)
                    return target
                await self._download(url, target, sha256)
            except OSError as error:
                raise LaunchError(f"cannot download {url}: {error}") from None
        if self._max_total is not None:
            in_use = {each.parent for each, lock in self._locks.items() if lock.locked()}
            try:
                await asyncio.to_thread(self._make_room, {target.parent, *in_use}, self._max_total)
            except OSError as error:
                _log.warning("downloads of the past cannot be removed: %s", error)
        return target

    def clear_partial(self) -> None:
        """Remove incomplete downloads of an earlier process."""
        for left in self._folder.glob(f"*/{_PARTIAL}*"):
            try:
                left.unlink(missing_ok=True)
                _log.debug("removed the partial download %s", left)
            except OSError as error:
                _log.warning("the partial download %s cannot be removed: %s", left, error)

    def _target(self, url: str, sha256: str | None) -> Path:
        name = _file_name(url)
        if sha256 is not None:
            return self._folder / sha256.lower() / name
        if self._plain:
            return self._folder / name
        return self._folder / f"url-{hashlib.sha256(url.encode()).hexdigest()[:32]}" / name

    def _is_right(self, path: Path, sha256: str) -> bool:
        """Return True if the file exists and its checksum is right; check each version once."""
        try:
            identity = _identity(path)
            if self._checked.get(path) != identity:
                if _checksum(path) != sha256.lower():
                    _log.warning("%s was changed; it is downloaded again", path)
                    return False
                self._checked[path] = identity
        except FileNotFoundError:
            return False
        return True

    async def _download(self, url: str, target: Path, sha256: str | None) -> None:
        """Download `url` into `target`, or keep its older file. Raises OSError and LaunchError."""
        _log.debug("downloading %s into %s", url, target)
        try:
            _make_folders(target.parent, self._folder)
            with _partial(target.parent) as (descriptor, partial):
                if problem := await self._transfer(url, descriptor):
                    raise LaunchError(problem)
                await asyncio.to_thread(self._finish, url, partial, target, sha256)
        except (OSError, LaunchError) as error:
            if sha256 is not None or not self._has_older(target):
                raise
            _log.warning("%s; %s of an earlier start is used", error, target)

    def _has_older(self, target: Path) -> bool:
        return not self._plain and target.exists()

    def _finish(self, url: str, partial: Path, target: Path, sha256: str | None) -> None:
        """Check a complete download and rename it to `target`. Raises OSError, LaunchError."""
        if sha256 is not None and (checksum := _checksum(partial)) != sha256.lower():
            raise LaunchError(
                f"{url} does not match path_sha256: its sha256 is {checksum}, expected {sha256}"
            )
        partial.chmod(0o755)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        if sha256 is not None:
            self._checked[target] = _identity(target)

    async def _transfer(self, url: str, descriptor: int) -> str:
        environ = helper_environment(os.environ) | {
            name: value
            for name, value in os.environ.items()
            if name.lower() in _PROXIES or name in _CERTIFICATES
        }
        argv = (sys.executable, "-P", "-s", "-m", "dorad.launch.transfer")
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await self._helpers.start_helper(
                    Command(argv, Path("/"), environ),
                    theirs.fileno(),
                    descriptor,
                    tag="downloads/transfer",
                    network=True,
                )
            try:
                order = {"url": url, "max_bytes": self._max_bytes, "max_seconds": self._max_seconds}
                reader, writer = await asyncio.open_unix_connection(sock=ours)
                try:
                    async with asyncio.timeout(self._max_seconds + _GRACE_SECONDS):
                        writer.write(json.dumps(order).encode() + b"\n")
                        answer = await reader.readline()
                finally:
                    writer.close()
                return str(json.loads(answer))
            except TimeoutError:
                return f"{url} takes longer than {self._max_seconds:g} s to download"
            except (ValueError, OSError):
                return f"cannot download {url}: its helper has ended"
            finally:
                process.signal(signal.SIGKILL)
                await process.wait()

    def _make_room(self, kept: Set[Path], max_total: int) -> None:
        """Remove the least recently used folders, except `kept`, down to `max_total` bytes.

        Raises OSError.
        """
        folders = [each for each in self._folder.iterdir() if each.is_dir()]
        sizes = {each: sum(file.stat().st_size for file in each.iterdir()) for each in folders}
        total = sum(sizes.values())
        for folder in sorted(folders, key=lambda each: each.stat().st_mtime):
            if total <= max_total:
                return
            if folder not in kept:
                _log.info("removing %s to make room for downloads", folder)
                shutil.rmtree(folder)
                total -= sizes[folder]


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[tuple[int, Path]]:
    """Make a new file in `folder`; remove it at the end unless it was renamed. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=_PARTIAL, dir=folder)
    try:
        yield descriptor, Path(name)
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _mark_used(folder: Path) -> None:
    """Let `_make_room` know that a file was used, if the disk can be written now."""
    try:
        os.utime(folder)
    except OSError as error:
        _log.debug("%s cannot be marked as used: %s", folder, error)


def _make_folders(folder: Path, top: Path) -> None:
    """Create `folder`, which is `top` or in it, for all users: their nodes run its files."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in {folder, top}:
        if each.stat().st_uid == os.geteuid():
            each.chmod(0o755)


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_name(url: str) -> str:
    """Return the last part of the URL's path, made safe as a file name."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return Path(last.replace("\0", "")).name.lstrip(".") or "node"
