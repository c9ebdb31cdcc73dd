"""The daemon's configuration file, /etc/dorad/dorad.toml, as plain typed values.

Every key is optional. An unknown key or section is an error, so that no misspelt key is ignored.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dorad.ownlog import LEVELS
from dorad.problems import ProblemError
from dorad.realtime.own import RealtimeSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    _T = TypeVar("_T")

SYSTEM_FILE = Path("/etc/dorad/dorad.toml")
ANY_USER = "*"

_SECTION = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*([\w-]+)\s*=")
_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")


class ConfigError(ProblemError):
    """A configuration that cannot be used; the message starts with file, line and key."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The users that nodes run as under systemd, and their sandbox."""

    user: str = "dorad-node"
    """The user of nodes without a `user`."""
    users: tuple[str, ...] = ()
    """Other users that nodes may name as their `user`; `*` allows every user, including root."""
    sandbox: bool = True
    """Whether nodes lose privileges that most nodes never need."""
    sandbox_exceptions: tuple[str, ...] = ()
    """Nodes without the sandbox, as `NODE` or `DATAFLOW/NODE`."""
    place: str = field(default="", compare=False)
    """The position of `user` in the file, as `FILE:LINE: nodes.user`; empty if it is not set."""

    def allows(self, user: str) -> bool:
        """Return True if a node may run as this user."""
        return user == self.user or user in self.users or ANY_USER in self.users

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

    def needing_restart(self, before: Settings) -> list[str]:
        """Return the names of settings that differ from `before` and take effect at a restart."""
        changed = {
            "[realtime]": self.realtime != before.realtime,
            "logs.journal": self.journal != before.journal,
        }
        return [name for name, different in changed.items() if different]


def load(path: Path) -> Settings:
    """Read the file; return the defaults if it does not exist.

    Raises:
        ConfigError: it cannot be read, or is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Settings:
    """Parse the text of the file `name`. Raises ConfigError."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        words = str(error)
        place = _PLACE.search(words)
        if place is None:
            raise ConfigError(f"{name}: {words}") from None
        raise ConfigError(f"{name}:{place[1]}:{place[2]}: {words[: place.start()]}") from None
    top = _Section(name, text, "", content)
    daemon = top.section("daemon")
    nodes = top.section("nodes")
    realtime = top.section("realtime")
    logs = top.section("logs")
    top.finish()
    settings = Settings(
        log_level=daemon.choice("log_level", LEVELS, "info"),
        nodes=NodeSettings(
            user=nodes.user("user", NodeSettings().user),
            users=nodes.users("users"),
            sandbox=nodes.value("sandbox", bool, True),
            sandbox_exceptions=nodes.texts("sandbox_exceptions"),
            place=nodes.place("user") if nodes.has("user") else "",
        ),
        realtime=_realtime(realtime),
        journal=logs.value("journal", bool, False) if logs.has("journal") else None,
    )
    for section in (daemon, nodes, realtime, logs):
        section.finish()
    return settings


def _realtime(section: _Section) -> RealtimeSettings:
    default = RealtimeSettings()
    return RealtimeSettings(
        enabled=section.value("enabled", bool, default.enabled),
        policy=section.choice("policy", ("fifo", "rr", "other"), default.policy),
        priority=section.number("priority", 1, 99, default.priority),
        lock_memory=section.value("lock_memory", bool, default.lock_memory),
        cpu_affinity=section.numbers("cpu_affinity", 0, 8191),
    )


_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    str: "text",
    list: "a list",
    dict: "a section",
}


class _Section:
    """One table of the file, with getters that check values. Each raises ConfigError."""

    def __init__(self, name: str, text: str, title: str, content: Mapping[str, Any]) -> None:
        self._name = name
        self._text = text
        self._title = title
        self._content = content
        self._known: list[str] = []

    def section(self, key: str) -> _Section:
        return _Section(self._name, self._text, key, self.value(key, dict, {}))

    def has(self, key: str) -> bool:
        return key in self._content

    def value(self, key: str, kind: type[_T], default: _T) -> _T:
        self._known.append(key)
        value = self._content.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"must be {_WORDS[kind]}, not {value!r}")
        return value

    def choice(self, key: str, words: Collection[str], default: str) -> str:
        value = self.value(key, str, default)
        if value not in words:
            raise self.error(key, f"must be one of {', '.join(words)}, not {value!r}")
        return value

    def number(self, key: str, minimum: int, maximum: int, default: int) -> int:
        value = self.value(key, int, default)
        if not minimum <= value <= maximum:
            raise self.error(key, f"must be from {minimum} to {maximum}, not {value}")
        return value

    def numbers(self, key: str, minimum: int, maximum: int) -> tuple[int, ...]:
        values: list[Any] = self.value(key, list, [])
        for value in values:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not minimum <= value <= maximum:
                raise self.error(key, f"must be numbers from {minimum} to {maximum}, not {value!r}")
        return tuple(values)

    def texts(self, key: str) -> tuple[str, ...]:
        values: list[Any] = self.value(key, list, [])
        for value in values:
            if not isinstance(value, str):
                raise self.error(key, f"must be texts, not {value!r}")
        return tuple(values)

    def user(self, key: str, default: str) -> str:
        value = self.value(key, str, default)
        if not _USER.fullmatch(value):
            raise self.error(key, f"{value!r} is not a valid user name")
        return value

    def users(self, key: str) -> tuple[str, ...]:
        values: list[Any] = self.value(key, list, [])
        for value in values:
            if value != ANY_USER and not (isinstance(value, str) and _USER.fullmatch(value)):
                raise self.error(key, f"{value!r} is not a valid user name")
        return tuple(values)

    def finish(self) -> None:
        """Raise ConfigError for the first key that no getter has read."""
        for key in self._content:
            if key not in self._known:
                what = "key" if self._title else "section"
                known = ", ".join(self._known)
                raise self.error(key, f"unknown {what} (known here: {known})")

    def error(self, key: str, text: str) -> ConfigError:
        return ConfigError(f"{self.place(key)}: {text}")

    def place(self, key: str) -> str:
        full = f"{self._title}.{key}" if self._title else key
        return f"{self._name}:{self._line(key)}: {full}"

    def _line(self, key: str) -> int:
        """Return the line of a key of this section, or of a section."""
        title = ""
        for number, line in enumerate(self._text.splitlines(), 1):
            if match := _SECTION.match(line):
                title = match[1]
                if not self._title and title.split(".")[0] == key:
                    return number
            elif title == self._title and (match := _KEY.match(line)) and match[1] == key:
                return number
        return 1
