"""The users of dataflows. Each dataflow has its own, so its nodes cannot reach those of others.

The package creates the users. Which dataflow has which is in the state file, and the owner of a
dataflow's folders confirms it: a user that owns folders of another dataflow is not free.
"""

from __future__ import annotations

import logging
import os
import pwd
import shlex
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dorad.daemon.config import POOL_PREFIX
from dorad.launch.model import LaunchError, StateFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from dorad.daemon.recordstore import RecordStore
    from dorad.dataflow.model import NodeSpec

MAX_USERS = 64
"""The number of users that the package creates."""
STATE_FOLDER = "dataflows"
"""In the daemon's folder: the state folders of dataflows with a name."""
RECORDINGS_FOLDER = "recordings"
"""In the daemon's folder: the recordings of dataflows."""

_log = logging.getLogger(__name__)


class Assignment(NamedTuple):
    """A user that belongs to a dataflow."""

    dataflow: str
    """Its name, else its UUID."""
    user: str
    used_at: float
    """When the dataflow was started last, in seconds since 1970."""


def choose(
    dataflow: str,
    users: Sequence[str],
    assigned: Collection[Assignment],
    owners: Mapping[str, Collection[str]],
    release: Callable[[Assignment], bool],
) -> str | None:
    """Return the user for a dataflow; None if every user is in use.

    `owners` has the names of the dataflows whose folders each user owns. `release` frees a user
    that nothing of its dataflow needs any more, and returns False for others; it is asked for the
    one that is not used for longest first.
    """
    for each in assigned:
        if each.dataflow == dataflow and each.user in users:
            return each.user
    taken = {each.user for each in assigned}
    free = [user for user in users if user not in taken]
    for user in free:
        if dataflow in owners.get(user, ()):
            return user
    for user in free:
        if user not in owners:
            return user
    for each in sorted(assigned, key=lambda each: each.used_at):
        if each.user in users and release(each):
            return each.user
    return None


class UserPool:
    """Assigns users to dataflows. Belongs to one event loop."""

    def __init__(self, store: RecordStore, folder: Path, is_known: Callable[[str], bool]) -> None:
        """`folder` is the daemon's; `is_known` returns True if a dataflow may start again."""
        self._store = store
        self._folder = folder
        self._is_known = is_known
        self._assigned: dict[str, Assignment] = {}

    def load(self) -> None:
        """Read the assignments of earlier daemons. Raises StateError."""
        self._assigned = {each.dataflow: each for each in self._store.load_assignments()}

    def assign(self, dataflow: str) -> str:
        """Return the user of a dataflow, which it keeps.

        Raises:
            LaunchError: there are no such users, or all are in use.
        """
        users = pool_users()
        if not users:
            raise LaunchError(
                f"there are no users `{POOL_PREFIX}01` to `{POOL_PREFIX}{MAX_USERS}`, which"
                " dataflows run as; create them with `systemd-sysusers`"
            )
        user = choose(dataflow, users, self._assigned.values(), self._owners(users), self._release)
        if user is None:
            raise LaunchError(
                f"all {len(users)} users for dataflows are in use; `dora clean` forgets ended"
                f" dataflows, and the user of a forgotten one is free once its folder in"
                f" {self._folder / STATE_FOLDER} and in {self._folder / RECORDINGS_FOLDER} is"
                " deleted or empty"
            )
        for other in [each for each in self._assigned.values() if each.user == user]:
            if other.dataflow != dataflow:
                del self._assigned[other.dataflow]
                self._store.delete_assignment(other.dataflow)
        assignment = Assignment(dataflow, user, time.time())
        self._assigned[dataflow] = assignment
        self._store.put_assignment(assignment)
        _log.debug("dataflow %s has the user %s", dataflow, user)
        return user

    def _release(self, assignment: Assignment) -> bool:
        """Return True if nothing is left of a dataflow, after removing its empty folders."""
        if self._is_known(assignment.dataflow):
            return False
        for folder in [*self._folders_of(assignment.user)]:
            try:
                folder.rmdir()
            except OSError as error:
                _log.debug("the user %s is not free: %s: %s", assignment.user, folder, error)
                return False
        _log.debug("the user %s of dataflow %s is free", *reversed(assignment[:2]))
        return True

    def _owners(self, users: Iterable[str]) -> dict[str, set[str]]:
        owners = {user: {each.name for each in self._folders_of(user)} for user in users}
        return {user: names for user, names in owners.items() if names}

    def _folders_of(self, user: str) -> Iterator[Path]:
        """Yield the folders in the daemon's folder that a user owns."""
        uid = pwd.getpwnam(user).pw_uid
        for parent in (self._folder / STATE_FOLDER, self._folder / RECORDINGS_FOLDER):
            try:
                folders = sorted(parent.iterdir())
            except FileNotFoundError:
                continue
            yield from (folder for folder in folders if _owner(folder) == uid)


def pool_users() -> list[str]:
    """Return the users of this machine that dataflows get."""
    users = []
    for number in range(1, MAX_USERS + 1):
        try:
            users.append(pwd.getpwnam(f"{POOL_PREFIX}{number:02}").pw_name)
        except KeyError:
            _log.debug("there is no user %s%02d", POOL_PREFIX, number)
    return users


def owned_by(paths: Iterable[Path], user: str) -> Path | None:
    """Return the first of these folders that belongs to a user; None if there is none.

    Of a folder that does not exist yet, the nearest one above it counts.
    """
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
    for path in paths:
        for folder in (path, *path.parents):
            owner = _owner(folder, follow=True)
            if owner == uid:
                return folder
            if owner is not None:
                break
    return None


def node_folder(state: Path, dataflow: str, user: str, node: NodeSpec) -> StateFolder | None:
    """Return the folder that systemd makes for a node of a dataflow with this name and user.

    `state` is the daemon's folder. A recorder has the folder of recordings that it writes to; other
    nodes have the state folder of their dataflow.
    """
    if not node.is_recorder:
        return _given(state / STATE_FOLDER / dataflow, 0o750, user, dataflow)
    base = state / RECORDINGS_FOLDER
    for word in shlex.split(node.args or ""):
        path = Path(os.path.normpath(word))
        if path != base and path.is_relative_to(base):
            name = path.relative_to(base).parts[0]
            # Everyone reads recordings: the agent, and operators.
            return _given(base / name, 0o755, user, dataflow)
    return None


def _given(folder: Path, mode: int, user: str, dataflow: str) -> StateFolder | None:
    """Return a folder for systemd to give to a user with all that it contains, if that is safe.

    So it must not be a link that another user has made, nor a folder of another dataflow.
    """
    try:
        if folder.parent.exists() and not _is_root_s(folder.parent):
            _log.debug("%s can be written by others than root", folder.parent)
            return None
        present = folder.lstat()
    except FileNotFoundError:
        present = None
    except OSError as error:
        _log.debug("%s is not given to %s: %s", folder, user, error)
        return None
    if present is not None and (
        not stat.S_ISDIR(present.st_mode)
        or (folder.name != dataflow and present.st_uid != pwd.getpwnam(user).pw_uid)
    ):
        _log.debug("%s is not given to %s: it is a link or belongs to others", folder, user)
        return None
    return StateFolder(str(folder.relative_to(folder.parents[2])), mode)


def _is_root_s(folder: Path) -> bool:
    status = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & others


def _owner(path: Path, *, follow: bool = False) -> int | None:
    """Return the uid of a folder's owner; None if there is no such folder, or only a link."""
    try:
        status = path.stat(follow_symlinks=follow)
    except OSError:
        return None
    return status.st_uid if stat.S_ISDIR(status.st_mode) else None
