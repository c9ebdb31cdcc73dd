"""The state that a daemon stores for the next one: dataflows, parameters, and alerts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dorad.control.alertbook import StoredAlert
from dorad.control.messages import Share, Status
from dorad.daemon.database import Database, Schema, StateError
from dorad.daemon.userpool import Assignment

_ALERTS = "CREATE TABLE alerts (id INTEGER PRIMARY KEY, content TEXT NOT NULL) STRICT;"
"""One row, with all of them."""
_TABLES = """
CREATE TABLE dataflow (
    uuid TEXT PRIMARY KEY, name TEXT, path TEXT NOT NULL, original TEXT NOT NULL,
    descriptor TEXT NOT NULL, options TEXT NOT NULL, log_dir TEXT NOT NULL,
    status TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    results TEXT NOT NULL DEFAULT '[]', failures TEXT NOT NULL DEFAULT '[]',
    snapshot TEXT NOT NULL DEFAULT '{}', enabled INTEGER NOT NULL DEFAULT 0,
    interrupted INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;
CREATE TABLE param (
    dataflow TEXT NOT NULL REFERENCES dataflow ON DELETE CASCADE, node TEXT NOT NULL,
    key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (dataflow, node, key)
) STRICT, WITHOUT ROWID;
"""

_ASSIGNMENTS = """
CREATE TABLE IF NOT EXISTS assignment (
    dataflow TEXT PRIMARY KEY, user TEXT NOT NULL, used_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
"""The users of dataflows."""

SCHEMA = Schema(
    version=5,
    tables=_TABLES + _ALERTS,
    upgrades={
        1: "ALTER TABLE dataflow ADD COLUMN enabled INTEGER NOT NULL DEFAULT 0",
        2: "DROP TABLE node; DROP TABLE restart",
        3: _ALERTS,
        # Nothing is known of those that have ended: a start too many is better than none.
        4: "ALTER TABLE dataflow ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 1",
    },
    additions=_ASSIGNMENTS,
)


class Options(msgspec.Struct, frozen=True):
    """The options that a dataflow was started with."""

    env: dict[str, str] = {}
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None
    hot_reload: bool = False
    share: Share | None = None
    """The part of the dataflow that this machine runs; None means all of it."""
    user: str = ""
    """The user of its nodes, from its start to its end; empty is that of the configuration."""


class Row(msgspec.Struct):
    """One dataflow as it is stored."""

    uuid: str
    name: str | None
    path: str
    original: dict[str, Any]
    """The descriptor it was started from."""
    descriptor: dict[str, Any]
    """The current descriptor."""
    options: Options
    log_dir: str
    status: Status
    started_at: float
    ended_at: float | None = None
    results: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    snapshot: dict[str, Any] = {}
    enabled: bool = False
    """Whether it starts at boot."""
    interrupted: bool = False
    """Whether it ended only because the daemon or the machine did."""


_JSON_COLUMNS = ("original", "descriptor", "options", "results", "failures", "snapshot")
_COLUMNS = (
    "uuid", "name", "path", "original", "descriptor", "options", "log_dir", "status",
    "started_at", "ended_at", "results", "failures", "snapshot", "enabled", "interrupted",
)  # fmt: skip


class State(Database):
    """The stored dataflows, parameters and alerts. Belongs to one thread, except `sync`."""

    def __init__(
        self, path: Path, warn: Callable[[str], None], *, spare: Path | None = None
    ) -> None:
        """Open or create the file at `path`, or use `spare`; see `Database`. Raises StateError."""
        super().__init__(path, SCHEMA, warn, spare=spare)

    def check_content(self) -> None:
        """Read everything once. Raises if anything is invalid."""
        self.alerts()
        self.assignments()
        for row in self.rows():
            self.params(row.uuid)

    def rows(self) -> list[Row]:
        """Return all dataflows, the oldest first. Raises StateError."""
        rows = self.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM dataflow ORDER BY started_at"  # noqa: S608 - constants
        )
        return [_row(values) for values in rows]

    def put(self, row: Row) -> None:
        """Store a dataflow, or its changes. Raises StateError."""
        fields = msgspec.structs.asdict(row)
        for column in _JSON_COLUMNS:
            fields[column] = _json(fields[column])
        updates = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
        self.execute(
            f"INSERT INTO dataflow ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - constants
            f"({', '.join(f':{name}' for name in _COLUMNS)}) "
            f"ON CONFLICT (uuid) DO UPDATE SET {updates}",
            fields,
        )

    def put_snapshot(self, uuid: str, snapshot: Mapping[str, Any]) -> None:
        """Store the progress of a dataflow. Raises StateError."""
        text = _json(snapshot)
        self.execute("UPDATE dataflow SET snapshot = ? WHERE uuid = ?", (text, uuid))

    def forget(self, uuids: Iterable[str]) -> None:
        """Delete dataflows and their parameters, all or none. Raises StateError."""
        with self.atomically():
            for uuid in uuids:
                self.execute("DELETE FROM dataflow WHERE uuid = ?", (uuid,))

    def params(self, uuid: str) -> dict[str, dict[str, Any]]:
        """Return the parameters that were set, by node and key. Raises StateError."""
        params: dict[str, dict[str, Any]] = {}
        for node, key, value in self.execute(
            "SELECT node, key, value FROM param WHERE dataflow = ? ORDER BY node, key", (uuid,)
        ):
            params.setdefault(node, {})[key] = msgspec.json.decode(value)
        return params

    def set_param(self, uuid: str, node: str, key: str, value: Any) -> None:
        """Store a parameter. Raises StateError."""
        self.execute(
            "INSERT INTO param VALUES (?, ?, ?, ?) "
            "ON CONFLICT (dataflow, node, key) DO UPDATE SET value = excluded.value",
            (uuid, node, key, _json(value)),
        )

    def delete_param(self, uuid: str, node: str, key: str) -> None:
        """Delete a parameter, if it exists. Raises StateError."""
        self.execute(
            "DELETE FROM param WHERE dataflow = ? AND node = ? AND key = ?", (uuid, node, key)
        )

    def alerts(self) -> list[StoredAlert]:
        """Return the alerts that were stored last. Raises StateError."""
        for (content,) in self.execute("SELECT content FROM alerts"):
            return msgspec.json.decode(content, type=list[StoredAlert])
        return []

    def assignments(self) -> list[Assignment]:
        """Return the users of dataflows. Raises StateError."""
        rows = self.execute("SELECT dataflow, user, used_at FROM assignment")
        return [Assignment(*values) for values in rows]

    def put_assignment(self, assignment: Assignment) -> None:
        """Store the user of a dataflow. Raises StateError."""
        self.execute(
            "INSERT OR REPLACE INTO assignment (dataflow, user, used_at) VALUES (?, ?, ?)",
            assignment,
        )

    def delete_assignment(self, dataflow: str) -> None:
        """Delete the user of a dataflow, which has none then. Raises StateError."""
        self.execute("DELETE FROM assignment WHERE dataflow = ?", (dataflow,))

    def put_alerts(self, alerts: Sequence[StoredAlert]) -> None:
        """Store all alerts, in place of those before. Raises StateError."""
        self.execute("INSERT OR REPLACE INTO alerts VALUES (1, ?)", (_json(alerts),))


def _row(values: tuple[Any, ...]) -> Row:
    fields = dict(zip(_COLUMNS, values, strict=True))
    for column in _JSON_COLUMNS:
        fields[column] = msgspec.json.decode(fields[column])
    for column in ("enabled", "interrupted"):
        fields[column] = bool(fields[column])
    return msgspec.convert(fields, Row)


def _json(value: Any) -> str:
    """Encode a value as JSON. Raises StateError if JSON cannot represent it."""
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError, RecursionError) as error:
        raise StateError(f"the value cannot be stored as JSON: {error}") from error
