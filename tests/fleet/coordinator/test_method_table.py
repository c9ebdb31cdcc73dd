"""The reviewed table of all methods: who may call them, and what they may take and touch.

`methods.txt` is for readers. A change of it is a change of what a viewer or an operator may do, or
of what old clients rely on. `python -m tests.fleet.coordinator.test_method_table` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.agent.handlers import OF_COORDINATOR
from dorad.control.limits import time_allowed
from dorad.control.messages import METHODS as DAEMON_METHODS
from dorad.control.messages.agent import AGENT_METHODS
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.onerobot import PARAM_CHANGES, PASSED_ON, STOPPED_BY_ROLLOUTS
from dorafleet.coordinator.recorded import RECORDED
from dorafleet.coordinator.robot import REPORTS
from dorafleet.coordinator.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.control.messages import Method

FILE = Path(__file__).with_name("methods.txt")
HEADER = ("method", "servers", "role", "answer", "time", "scope", "record", "report", "types")
SAMPLES: tuple[dict[str, Any], ...] = ({}, {"grace": 4.0}, {"force": True}, {"timeout": 4.0})


def rows() -> Iterator[tuple[str, ...]]:
    yield HEADER
    for name, method in sorted((METHODS | AGENT_METHODS).items()):
        yield (
            name,
            servers_of(name),
            role_of(name),
            "frames" if method.binary else "stream" if method.stream else "result",
            times_of(method),
            scope_of(name),
            record_of(name),
            report_of(name),
            f"{method.params.__name__} {method.result.__name__}",
        )


def servers_of(name: str) -> str:
    tables = {"agent": AGENT_METHODS, "coordinator": METHODS, "daemon": DAEMON_METHODS}
    return "+".join(server for server, table in tables.items() if name in table)


def role_of(name: str) -> str:
    return "coordinator" if name in AGENT_METHODS else ROLES[name]


def times_of(method: Method) -> str:
    """Return the seconds beyond the usual, by parameters."""
    fields = msgspec.structs.fields(method.params)
    known = {field.name for field in fields}
    needed = {field.name: None for field in fields if field.required}
    times = []
    for sample in SAMPLES:
        if sample.keys() <= known:
            seconds = time_allowed(method.params(**needed | sample), 0.0)
            given = "".join(f"{key}={value}:" for key, value in sample.items())
            times.append(given + ("unlimited" if seconds is None else f"{seconds:g}"))
    return ",".join(times)


def scope_of(name: str) -> str:
    return "any" if name in PASSED_ON else "placed" if name in STOPPED_BY_ROLLOUTS else "server"


def record_of(name: str) -> str:
    return "names" if name in RECORDED else "values" if name in PARAM_CHANGES else "-"


def report_of(name: str) -> str:
    assert name != OF_COORDINATOR or name in REPORTS
    return "report" if name in REPORTS else "-"


def table() -> str:
    lines = list(rows())
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def test_the_table_of_all_methods_is_as_reviewed() -> None:
    assert table() == FILE.read_text(encoding="utf-8")


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
