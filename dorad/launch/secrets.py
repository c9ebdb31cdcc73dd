"""Find the secrets of nodes on this machine, and give a node its own as files.

The daemon handles paths only. A value is never in its memory: systemd reads the file, or the kernel
copies it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from dorad.dataflow.secrets import MAX_SECRET
from dorad.launch.model import LaunchError, RefusedError
from dorad.procinfo import is_alive

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The variable with the folder of a process's secrets. systemd uses the same one."""
OF_AGENT = Path("/run/dorad-agent/secrets")
"""The folder where a robot's agent keeps the secrets of its fleet."""
OF_MACHINE = Path("/etc/dorad/secrets")
"""The folder for secrets that root puts there."""
FOLDER = "secrets"
"""In the folder of a daemon's sockets: where the agent of this daemon's user keeps them."""

_SHARED_MEMORY = Path("/dev/shm")
_HOLDER = re.compile(r"([0-9]+)\.([0-9]+)")
_log = logging.getLogger(__name__)


def own_secrets() -> Path:
    """Return the folder for secrets that this user puts there."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".config"
    return home / "dora" / FOLDER


def find_secret(name: str, folders: Iterable[Path]) -> Path:
    """Return the file of a secret in the first of the folders that has it.

    The last folder is the one where people put secrets.

    Raises:
        RefusedError: this machine does not have it, or not yet.
        LaunchError: it cannot be used.
    """
    path = None
    for folder in folders:
        path = folder / name
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RefusedError(
                f"secret `{name}`: {path} cannot be read: {error.strerror}"
            ) from None
        _check(name, path, status)
        return path
    raise RefusedError(
        f"secret `{name}` is not on this machine; on a robot of a fleet set it with"
        f" `dorafleet secret set {name} --for ROBOT`, elsewhere put its value into {path}"
    )


def _check(name: str, path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise LaunchError(f"secret `{name}`: {path} is not a file")
    if status.st_mode & 0o027:
        raise LaunchError(
            f"secret `{name}`: others may use {path}, whose mode is"
            f" {stat.S_IMODE(status.st_mode):04o}; `chmod 600 {path}`, and replace the value if"
            " another user can have read it"
        )
    if not 0 < status.st_size <= MAX_SECRET:
        raise LaunchError(
            f"secret `{name}`: {path} has {status.st_size} bytes; 1 to {MAX_SECRET} are possible"
        )


def newer_secrets(files: Mapping[str, Path | None], started_at: float) -> list[str]:
    """Return the names of the secrets that have changed since a process was started.

    One that is no longer there (None) has changed, too.
    """
    return sorted(
        name for name, path in files.items() if path is None or _changed_at(path) > started_at
    )


def _changed_at(path: Path) -> float:
    """Return when a file got its content or its place; in the future if it is missing."""
    try:
        return path.stat().st_ctime
    except OSError as error:
        _log.debug("%s: %s", path, error)
        return float("inf")


class CredentialFolders:
    """Folders in memory, each with the secrets of one process, for hosts other than systemd.

    They end with their process or, after a crash, when the next dora of this user runs: each
    belongs to a process holder, by its pid and its start.
    """

    def __init__(self, holder: tuple[int, int], base: Path | None = None) -> None:
        """`holder` is the pid and the start time of the process holder. Creates nothing yet."""
        self._base = base or _SHARED_MEMORY / f"dora-credentials-{os.getuid()}"
        self._own = self._base / "{}.{}".format(*holder)

    def make(self, tag: str, secrets: Mapping[str, Path]) -> Path:
        """Return a new folder with copies of these files, for the process with this tag.

        Raises:
            LaunchError: it cannot be made.
        """
        folder = self._folder(tag)
        try:
            _make_private(self._base)
            self.sweep()
            self._own.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise LaunchError(f"no folder for its secrets: {folder}: {error.strerror}") from error
        try:
            for name, source in secrets.items():
                try:
                    _copy(source, folder / name)
                except OSError as error:
                    raise RefusedError(
                        f"secret `{name}` cannot be copied from {source}: {error.strerror}"
                    ) from error
            folder.chmod(0o500)
        except BaseException:
            self.remove(tag)
            raise
        _log.debug("%s has %d secrets in %s", tag, len(secrets), folder)
        return folder

    def remove(self, tag: str) -> None:
        """Remove the folder of the process with this tag, if it has one."""
        _remove(self._folder(tag))

    def keep_only(self, tags: Iterable[str]) -> None:
        """Remove the folders of this holder's processes except those with these tags."""
        kept = {self._folder(tag).name for tag in tags}
        for folder in _entries(self._own):
            if folder.name not in kept:
                _remove(folder)

    def close(self) -> None:
        """Remove all folders of this holder's processes, which have ended."""
        _remove(self._own)

    def sweep(self) -> None:
        """Remove the folders of holders that have ended."""
        for folder in _entries(self._base):
            holder = _HOLDER.fullmatch(folder.name)
            if holder is not None and not is_alive(int(holder[1]), int(holder[2])):
                _log.debug("removing secrets of process holder %s, which has ended", holder[1])
                _remove(folder)

    def _folder(self, tag: str) -> Path:
        return self._own / tag.replace("/", ":")


def _make_private(folder: Path) -> None:
    """Create a folder in a place where all users may create folders. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(0, f"{folder} belongs to another user or is open to others")


def _copy(source: Path, target: Path) -> None:
    """Copy a file within the kernel. Raises OSError."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        writing = os.open(target, flags, 0o400)
        try:
            left = MAX_SECRET
            while left > 0 and (sent := os.sendfile(writing, reading, None, left)):
                left -= sent
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _remove(folder: Path) -> None:
    """Remove a folder with all that it contains, if it is there."""
    try:
        for each in (folder, *_entries(folder)):
            if each.is_dir():
                each.chmod(0o700)
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("the secrets in %s cannot be removed: %s", folder, error.strerror)
