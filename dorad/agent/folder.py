"""The folder of an agent, and files in it that a power cut leaves whole."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_DIR = Path("/var/lib/dorad-agent")
"""The folder on a robot. The package creates it."""


def default_folder() -> Path:
    """Return the machine's folder if the package is installed, else this user's."""
    if SYSTEM_DIR.is_dir():
        return SYSTEM_DIR
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return home / "dorad-agent"


def open_folder(path: Path) -> None:
    """Create the folder if it is missing.

    Root acts from now on as the user that the folder belongs to: the agent must be able to read
    what root writes there, and root must not follow links that the agent could make.

    Raises:
        OSError: it cannot be created.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def write_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that is on the disk on return; a power cut leaves the old one or the new one.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(number, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(content)
            file.flush()
            os.fsync(number)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make new, renamed and removed names in a folder survive a power cut."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
