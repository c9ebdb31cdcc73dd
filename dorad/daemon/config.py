"""The daemon's configuration file, /etc/dorad/dorad.toml, as plain typed values.

Every key is optional. An unknown key or section is an error, so that no misspelt key is ignored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dorad.control.agentsettings import (
    INCIDENTS_SECTION,
    SECTION,
    read_agent,
    read_incidents,
)
from dorad.control.messages.agent import Accepts
from dorad.control.peer import EXPORTER_USER
from dorad.dataflow.errors import Problem, TextError
from dorad.dataflow.fields import Fields, integer, one_of, warn_twice
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.text import read_text
from dorad.dataflow.toml import read_toml
from dorad.ownlog import LEVELS
from dorad.problems import ProblemError
from dorad.realtime.own import POLICIES, RealtimeSettings
from dorad.telemetry import settings as telemetry

_log = logging.getLogger(__name__)

ANY_USER = "*"
LINK_USER = "dorad-link"
"""The user that links between machines run as under systemd."""
OWN_USERS = (LINK_USER, "dorad-agent", EXPORTER_USER)
"""Users of dorad's other processes. No node runs as one: it could read their keys."""
POOL_PREFIX = "dorad-df"
"""How the names of the users begin that dataflows get; see `userpool`."""
DEVICE_GROUPS = ("audio", "dialout", "gpio", "i2c", "plugdev", "render", "spi", "video")
"""The groups of devices on Debian and on its relatives for robots."""

_MAX_CORE = 8191
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")


class ConfigError(ProblemError):
    """A configuration that cannot be used; `str()` has all problems in one line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        ordered = in_order(problems)
        super().__init__("refused", "; ".join(map(str, ordered)), problems=ordered)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The users that nodes run as under systemd, and their sandbox."""

    user: str = "dorad-node"
    """The user of nodes without a `user`."""
    users: tuple[str, ...] = ()
    """Other users that nodes may name as their `user`; `*` allows every user, including root."""
    groups: tuple[str, ...] = DEVICE_GROUPS
    """Groups that nodes may name in their `groups`."""
    sandbox: bool = True
    """Whether nodes lose privileges that most nodes never need."""
    sandbox_exceptions: tuple[str, ...] = ()
    """Nodes without the sandbox, as `NODE` or `DATAFLOW/NODE`."""
    place: str = field(default="", compare=False)
    """The position of `user`, as `FILE:LINE:COLUMN: nodes.user`; empty if it is not set."""

    def allows(self, user: str) -> bool:
        """Return True if a node may run as this user."""
        listed = user == self.user or user in self.users or ANY_USER in self.users
        return listed and not is_reserved(user)

    def allows_group(self, group: str) -> bool:
        """Return True if a node may name this group."""
        return group in self.groups or ANY_USER in self.users

    def sandboxed(self, dataflow: str | None, node: str) -> bool:
        """Return True if a node of the dataflow with this name runs in the sandbox."""
        return self.sandbox and not {node, f"{dataflow}/{node}"} & set(self.sandbox_exceptions)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings."""

    log_level: str = "info"
    nodes: NodeSettings = field(default_factory=NodeSettings)
    realtime: RealtimeSettings = field(default_factory=RealtimeSettings)
    journal: bool | None = None
    """Whether lines of nodes go to systemd's journal; None means if systemd runs the daemon."""
    agent: Accepts = field(default_factory=Accepts)
    """What the agent takes from its coordinator. It reads the file itself."""
    telemetry: telemetry.Section = field(default_factory=telemetry.Section)
    """What the exporter sends. It reads the file itself."""

    def needing_restart(self, before: Settings) -> list[str]:
        """Return the names of settings that differ from `before` and take effect at a restart."""
        changed = {
            "[realtime]": self.realtime != before.realtime,
            "logs.journal": self.journal != before.journal,
        }
        return [name for name, different in changed.items() if different]


def is_reserved(user: str) -> bool:
    """Return True for users of dorad's own processes, and for those that it gives to dataflows."""
    return user in OWN_USERS or user.startswith(POOL_PREFIX)


def load(path: Path) -> Settings:
    """Read the file; return the defaults if it does not exist.

    Raises:
        ConfigError: it cannot be read, or is invalid.
    """
    problems = Problems(str(path))
    try:
        path.stat()
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        problems.at(0, 0, f"cannot be read: {error.strerror}")
        raise ConfigError(problems.errors) from error
    text = read_text(path, problems, "a configuration of dorad")
    if text is None:
        raise ConfigError(problems.errors)
    return parse(text, str(path))


def parse(text: str, name: str) -> Settings:
    """Parse the text of the file `name`; log what is probably not meant.

    Raises:
        ConfigError: it is invalid; has every problem.
    """
    problems = Problems(name)
    root = read_toml(text, problems)
    settings = Settings()
    if root is not None:
        top = Fields(root, problems)
        for section, read in _SECTIONS.items():
            block = top.inside(section, "a section")
            if block is not None:
                settings = read(block, settings)
                block.finish()
        top.finish()
    if problems.errors:
        raise ConfigError(problems.errors)
    for warning in in_order(problems.warnings):
        _log.warning("%s", warning)
    return settings


def _read_daemon(block: Fields, before: Settings) -> Settings:
    level = block.checked("log_level", one_of(LEVELS), before.log_level)
    return replace(before, log_level=level)


def _read_nodes(block: Fields, before: Settings) -> Settings:
    default = before.nodes
    place = ""
    if block.has("user"):
        user = block.name_of("user")
        place = f"{block.problems.file}:{user.line}:{user.column}: {user.key}"
    sandbox = block.flag("sandbox")
    nodes = NodeSettings(
        user=block.checked("user", _user, default.user),
        users=block.texts("users", _user_or_any),
        groups=block.texts("groups", _group) if block.has("groups") else default.groups,
        sandbox=default.sandbox if sandbox is None else sandbox,
        sandbox_exceptions=block.texts("sandbox_exceptions"),
        place=place,
    )
    return replace(before, nodes=nodes)


def _read_realtime(block: Fields, before: Settings) -> Settings:
    default = before.realtime
    lock_memory = block.flag("lock_memory")
    items = block.items("cpu_affinity")
    warn_twice(items, block.problems)
    cores = (integer(core, block.problems, 0, _MAX_CORE) for core in items)
    realtime = RealtimeSettings(
        enabled=block.flag("enabled") or False,
        policy=block.checked("policy", one_of(POLICIES), default.policy),
        priority=block.integer("priority", minimum=1, maximum=99) or default.priority,
        lock_memory=default.lock_memory if lock_memory is None else lock_memory,
        cpu_affinity=tuple(core for core in cores if core is not None),
    )
    return replace(before, realtime=realtime)


def _read_logs(block: Fields, before: Settings) -> Settings:
    return replace(before, journal=block.flag("journal"))


def _read_agent(block: Fields, before: Settings) -> Settings:
    return replace(before, agent=read_agent(block))


def _read_incidents(block: Fields, before: Settings) -> Settings:
    read_incidents(block)  # the agent reads it again; here its mistakes are found
    return before


def _read_telemetry(block: Fields, before: Settings) -> Settings:
    return replace(before, telemetry=telemetry.read_section(block))


_SECTIONS: dict[str, Callable[[Fields, Settings], Settings]] = {
    "daemon": _read_daemon,
    "nodes": _read_nodes,
    "realtime": _read_realtime,
    "logs": _read_logs,
    SECTION: _read_agent,
    INCIDENTS_SECTION: _read_incidents,
    telemetry.SECTION: _read_telemetry,
}


def _user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise TextError(f"`{text}` is not a valid user name")
    if text in OWN_USERS:
        raise TextError(f"nodes cannot run as `{text}`, whose processes have keys of this machine")
    if is_reserved(text):
        raise TextError(f"nodes cannot name `{text}`, which dorad gives to one dataflow")
    return text


def _group(text: str) -> str:
    if not _USER.fullmatch(text):
        raise TextError(f"`{text}` is not a valid name of a group")
    return text


def _user_or_any(text: str) -> str:
    return text if text == ANY_USER else _user(text)
