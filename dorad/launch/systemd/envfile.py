"""Pass the environments of nodes to systemd in files that only root can read.

Every user can read a unit's `Environment=`, over D-Bus and in /run/systemd/transient. So a unit
names a file instead, which systemd reads as root just before it executes the node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dorad.launch.model import LaunchError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED = re.compile(r'(["\\`$])')
MAX_BYTES = (1 << 17) - 1
"""Maximum length of `NAME=value` that Linux passes to a program."""

_log = logging.getLogger(__name__)


class EnvironmentFiles:
    """The folder of the files. Each file exists only while its unit is being started."""

    def __init__(self, folder: Path) -> None:
        """Create `folder`, accessible only to root, and remove files of an earlier daemon.

        Raises:
            OSError: the folder cannot be created.
        """
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for left in folder.iterdir():
            _log.debug("removing %s of an earlier daemon", left)
            left.unlink()

    @contextlib.contextmanager
    def file(self, env: Mapping[str, str]) -> Iterator[Path]:
        """Write `env` into a new file, and remove the file at the end.

        Raises:
            LaunchError: systemd or Linux cannot pass a variable, or the file cannot be written.
        """
        text = environment_text(env)
        try:
            descriptor, name = tempfile.mkstemp(dir=self._folder)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        path = Path(name)
        try:
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(text)
            except OSError as error:
                raise _unwritable(path, error) from error
            _log.debug("%d variables in %s", len(env), name)
            yield path
        finally:
            path.unlink(missing_ok=True)


def environment_text(env: Mapping[str, str]) -> bytes:
    """Return the text of an environment file with exactly the variables of `env`.

    Raises:
        LaunchError: a name or a value cannot be passed; the message does not contain the value.
    """
    return b"".join(_line(name, value) for name, value in env.items())


def _line(name: str, value: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise LaunchError(
            f"env: systemd cannot pass on a variable with the name {name!r}; use letters, digits"
            " and `_`, and no digit first"
        )
    try:
        size = len(name) + 1 + len(value.encode())
    except UnicodeEncodeError:
        raise LaunchError(f"env: the value of {name} is not valid text (UTF-8)") from None
    if "\0" in value:
        raise LaunchError(f"env: the value of {name} contains a NUL character")
    if size > MAX_BYTES:
        raise LaunchError(
            f"env: {name} has {size} bytes, and Linux passes on at most {MAX_BYTES};"
            " put the value into a file and its path into the variable"
        )
    escaped = _ESCAPED.sub(r"\\\1", value)
    return f'{name}="{escaped}"\n'.encode()


def _unwritable(path: Path, error: OSError) -> LaunchError:
    return LaunchError(f"the environment of the node cannot be written: {path}: {error.strerror}")
