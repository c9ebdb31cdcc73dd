"""Choose the user that a node runs as. No node runs as root because of a mistake."""

import contextlib
import grp
import logging
import os
import pwd
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dorad.control.agentsettings import SYSTEM_FILE
from dorad.daemon.config import LINK_USER, POOL_PREFIX, NodeSettings
from dorad.dataflow.nearest import did_you_mean
from dorad.launch.model import LaunchError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeUsers:
    """The configured users, applied to a host with or without units.

    Without units, nodes run as the daemon's user. The machine's daemon accepts that only if
    `[nodes] user` names that user, or if `user` is not set and systemd does not run the daemon, as
    in a container.
    """

    settings: NodeSettings
    units: bool = False
    """Whether nodes are units of systemd, which can run as any user."""
    system: bool = False
    """Whether this is the machine's daemon; a user's daemon runs nodes as that user."""
    missing: str = ""
    """Why there are no units, although systemd runs the daemon."""

    def problem(self) -> str:
        """Return why nodes without a `user` cannot be started; empty if they can."""
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
                " start D-Bus (`apt install dbus; systemctl start dbus`), and dorad continues"
            )
        if place:
            return (
                f"{place}: without systemd, nodes run as {_own_name()} and not as `{user}`;"
                f' to accept that, set user = "{_own_name()}"'
            )
        return ""

    @property
    def separate(self) -> bool:
        """Whether each dataflow has a user of its own: a set `[nodes] user` is for all of them."""
        return self.system and self.units and not self.settings.place

    def user_for(self, wanted: str | None, own: str = "") -> str:
        """Return the user for a node whose `user` is `wanted`; empty means the daemon's own user.

        `own` is the user of its dataflow; empty is that of the configuration.

        Raises:
            LaunchError: that user does not exist, is not allowed, or needs systemd.
        """
        if wanted is not None and not self.settings.allows(wanted):
            raise LaunchError(
                f"it may not run as user `{wanted}`; to allow that, add the user to `users` in the"
                " section [nodes] of /etc/dorad/dorad.toml"
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
            user = (wanted or own or self.settings.user) if self.units else ""
        _log.debug("a node with the user %r runs as %r", wanted, user or _own_name())
        return user

    def link_user(self) -> str:
        """Return the user of link processes; empty means the daemon's own user.

        It is not a user of nodes, which could otherwise read the keys in a link's memory.

        Raises:
            LaunchError: that user does not exist.
        """
        if not (self.system and self.units):
            return ""
        if not _exists(LINK_USER):
            raise LaunchError(
                f"there is no user `{LINK_USER}`, which links between machines run as;"
                " create it with `systemd-sysusers`"
            )
        return LINK_USER

    def groups_for(self, wanted: Collection[str], user: str) -> tuple[str, ...]:
        """Return the groups for a node that runs as `user` and whose `groups` are `wanted`.

        The user of a dataflow also has the groups of the configured one, which has them for all
        dataflows.

        Raises:
            LaunchError: a group does not exist, or is not allowed.
        """
        for group in wanted:
            if not self.settings.allows_group(group):
                raise LaunchError(
                    f"it may not have the group `{group}`; to allow that, add the group to `groups`"
                    f" in the section [nodes] of {SYSTEM_FILE}"
                )
            try:
                grp.getgrnam(group)
            except KeyError:
                names = [entry.gr_name for entry in grp.getgrall()]
                hint = did_you_mean(group, names)
                raise LaunchError(
                    f"there is no group `{group}`" + (f" ({hint})" if hint else "")
                ) from None
        groups = set(wanted)
        if user.startswith(POOL_PREFIX) and _exists(self.settings.user):
            entry = pwd.getpwnam(self.settings.user)
            for gid in os.getgrouplist(entry.pw_name, entry.pw_gid):
                with contextlib.suppress(KeyError):  # a number without a name
                    groups.add(grp.getgrgid(gid).gr_name)
        return tuple(sorted(groups))

    def is_user_of(self, wanted: Iterable[str | None], own: str, uid: int) -> bool:
        """Return True if a node runs as the user `uid` whose `user` is one of `wanted`.

        `own` is the user of its dataflow; empty is that of the configuration.
        """
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            return False
        return name in {each or own or self.settings.user for each in wanted}

    def _unknown(self, user: str, place: str) -> str:
        hint = did_you_mean(user, [entry.pw_name for entry in pwd.getpwall()])
        if place:
            return f"{place}: there is no user `{user}`" + (f" ({hint})" if hint else "")
        return (
            f"there is no user `{user}`, which nodes run as; create it with `systemd-sysusers`,"
            f" or set another with `user` in the section [nodes] of {SYSTEM_FILE}"
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
