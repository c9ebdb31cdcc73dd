"""Which user a node runs as; no node becomes root because something is missing or misspelt."""

from __future__ import annotations

import logging
import os
import pwd
from dataclasses import dataclass

from dorad.daemon.config import SYSTEM_FILE, NodeSettings
from dorad.dataflow.nearest import did_you_mean
from dorad.launch.model import LaunchError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeUsers:
    """What the configuration says of users, on a host that may or may not have units.

    Plain processes run as the daemon does. A daemon of the machine takes that for what is wanted
    only where `[nodes] user` names that very user; or where nothing does and nobody but the
    caller runs the daemon, as in a container without systemd.
    """

    settings: NodeSettings
    units: bool = False
    """Whether nodes are units of systemd, which can run as any user."""
    system: bool = False
    """Whether it is the daemon of the machine; that of a user runs nodes as that user."""
    missing: str = ""
    """Why there are no units although systemd runs the daemon."""

    def problem(self) -> str:
        """Return why nodes that name no user cannot be started; empty if they can."""
        user, place = self.settings.user, self.settings.place
        if not self.system:
            return ""
        if self.units:
            return "" if _exists(user) else self._unknown(user, place)
        if user == _own_name() and place:
            return ""
        if self.missing:
            return (
                f"{self.missing}, so nodes would run as {_own_name()} and not as {user};"
                " mend that (`apt install dbus; systemctl start dbus`), and dorad goes on by itself"
            )
        if place:
            return (
                f"{place}: without systemd nodes run as {_own_name()}, and not as `{user}`;"
                f' if that is wanted, change it to user = "{_own_name()}"'
            )
        return ""

    def user_for(self, wanted: str | None) -> str:
        """Return who a node runs as, whose `user` is `wanted`; empty is whoever starts it.

        Raises:
            LaunchError: that user does not exist, is not allowed, or cannot be taken on.
        """
        if wanted is not None and not self.settings.allows(wanted):
            raise LaunchError(
                f"it may not run as user `{wanted}`; whoever administers this machine allows it"
                " with `users` in the section [nodes] of /etc/dorad/dorad.toml"
            )
        if wanted and self.system and not self.units and wanted != _own_name():
            why = self.missing or "systemd does not run this dorad"
            raise LaunchError(
                f"it cannot run as user `{wanted}`: {why}, so nodes run as {_own_name()}"
            )
        if not wanted and (problem := self.problem()):
            raise LaunchError(problem)
        if not self.system:
            user = wanted or ""
        else:
            user = (wanted or self.settings.user) if self.units else ""
        _log.debug("a node with the user %r runs as %r", wanted, user or _own_name())
        return user

    def admits(self, uid: int) -> bool:
        """Return whether nodes may run as this user, and so attach."""
        try:
            return self.settings.allows(pwd.getpwuid(uid).pw_name)
        except KeyError:
            return False

    def is_user_of(self, wanted: str | None, uid: int) -> bool:
        """Return whether a node whose `user` is `wanted` belongs to the user `uid`."""
        try:
            return pwd.getpwuid(uid).pw_name == (wanted or self.settings.user)
        except KeyError:
            return False

    def _unknown(self, user: str, place: str) -> str:
        hint = did_you_mean(user, [entry.pw_name for entry in pwd.getpwall()])
        if place:
            return f"{place}: there is no user `{user}`" + (f" ({hint})" if hint else "")
        return (
            f"there is no user `{user}`, which nodes run as; make it with `systemd-sysusers`,"
            f" or name another with `user` in the section [nodes] of {SYSTEM_FILE}"
        )


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
