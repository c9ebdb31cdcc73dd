"""The folders of an agent, and the files of its identity."""

import grp
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from dorad.atomicfile import atomic_file
from dorad.control.agentsettings import SYSTEM_FILE
from dorad.control.errors import ControlError
from dorad.release.signature import SYSTEM_FOLDER as SIGNERS_DIR
from dorad.release.trees import SYSTEM_FOLDER as RELEASES_DIR
from dorad.shm.rendezvous import SYSTEM_DIR as MACHINE_DIR
from dorad.shm.rendezvous import runtime_dir

SYSTEM_DIR = Path("/var/lib/dorad-agent")
"""The folder on a robot. The package creates it."""

RECORDINGS_DIR = Path("/var/lib/dorad/recordings")
"""The folder on a robot for recordings. The package creates it, for the default user of nodes."""

FIRST = "enrolled-authority.pem"
"""In the identity after a hand-over: the authority that enrolled the robot. Its digest stays that
of the fleet, so the robot keeps the term, the head of the audit and the revocations."""

HAND_OVER = "hand-over.json"
"""In the identity during a hand-over."""

GROUP = "dorad"
"""The group of dorad, whose members may do everything on a robot."""

T = TypeVar("T")


def default_folder() -> Path:
    """Return the machine's folder if the package is installed, else this user's."""
    if SYSTEM_DIR.is_dir():
        return SYSTEM_DIR
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return home / "dorad-agent"


def settings_file(folder: Path) -> Path:
    """Return the file that says what an agent with this folder takes from its coordinator."""
    return SYSTEM_FILE if folder == SYSTEM_DIR else folder / SYSTEM_FILE.name


def releases_folder(folder: Path) -> Path:
    """Return the folder for releases that belongs to an agent with this folder.

    On a robot nodes must be able to read it, which run as other users.
    """
    return RELEASES_DIR if folder == SYSTEM_DIR else folder / "releases"


def recordings_folder(folder: Path) -> Path:
    """Return the folder for what dataflows from releases record, each in a folder of its name.

    On a robot nodes must be able to write it, which run as another user than the agent.
    """
    return RECORDINGS_DIR if folder == SYSTEM_DIR else folder / "recordings"


def signers_folder(folder: Path) -> Path:
    """Return the folder with the keys that may sign releases for this agent."""
    return SIGNERS_DIR if folder == SYSTEM_DIR else folder / "signers"


def daemon_socket(folder: Path) -> Path:
    """Return the control socket of the dorad that belongs to an agent with this folder.

    Raises:
        OSError: the folder of this user's sockets belongs to another user.
    """
    return (MACHINE_DIR if folder == SYSTEM_DIR else runtime_dir()) / "control.sock"


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


def make_secret_folder(path: Path) -> None:
    """Create a folder for files of the identity. Raises OSError."""
    path.mkdir(mode=0o700)
    if _is_shared(path.stat()):
        path.chmod(0o750)


def write_secret(path: Path, content: bytes) -> None:
    """Write a file of the identity, as `atomic_file` does. Only its owner may read it.

    On a robot the group of dorad may read it, too: dorad, which is not the agent's user, needs the
    key for the links of dataflows.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content)
        if _is_shared(os.fstat(file.fileno())):
            os.fchmod(file.fileno(), 0o640)


def _is_shared(status: os.stat_result) -> bool:
    try:
        return status.st_gid == grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return False


def decode(content: bytes, kind: type[T], what: str) -> T:
    """Return what a file of the identity has; `what` names it in the ControlError."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ControlError("refused", f"{what} is damaged: {error}", "enrol it again") from None
