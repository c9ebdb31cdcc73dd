"""The reviewed table of all methods: who may call them, and what they may take and touch.

`methods.txt` is for readers. A change of it is a change of what a viewer or an operator may do, or
of what old clients rely on. `make generate` writes it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dorad.control.messages import METHODS as DAEMON_METHODS
from dorad.control.messages import AnyMethod
from dorad.control.messages.agent import AGENT_METHODS
from dorafleet.coordinator.messages import METHODS

FILE = Path(__file__).with_name("methods.txt")
HEADER = ("method", "servers", "role", "answer", "time", "scope", "record", "report", "types")
SAMPLES: tuple[dict[str, Any], ...] = ({}, {"grace": 4.0}, {"force": True}, {"timeout": 4.0})


def rows() -> Iterator[tuple[str, ...]]:
    yield HEADER
    for name, method in sorted((METHODS | AGENT_METHODS).items()):
        yield (
            name,
            servers_of(name),
            method.role,
            "frames" if method.binary else "stream" if method.stream else "result",
            times_of(method),
            method.scope,
            method.record or "-",
            "report" if method.report else "-",
            f"{method.params.__name__} {method.result.__name__}",
        )


def servers_of(name: str) -> str:
    tables = {"agent": AGENT_METHODS, "coordinator": METHODS, "daemon": DAEMON_METHODS}
    return "+".join(server for server, table in tables.items() if name in table)


def times_of(method: AnyMethod) -> str:
    """Return the seconds beyond the usual, by parameters."""
    fields = msgspec.structs.fields(method.params)
    known = {field.name for field in fields}
    needed = {field.name: None for field in fields if field.required}
    times = []
    for sample in SAMPLES:
        if sample.keys() <= known:
            seconds = method.time_allowed(method.params(**needed | sample), 0.0)
            given = "".join(f"{key}={value}:" for key, value in sample.items())
            times.append(given + ("unlimited" if seconds is None else f"{seconds:g}"))
    return ",".join(times)


def table() -> str:
    lines = list(rows())
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def test_the_table_of_all_methods_is_as_reviewed() -> None:
    assert table() == FILE.read_text(encoding="utf-8")


def test_what_a_method_declares_is_possible_with_its_parameters() -> None:
    """A dataflow of a robot needs a name, and a record what it names."""
    fields = {
        "placed": {"dataflow"},
        "any": {"dataflow"},
        "names": {"dataflow", "node"},
        "values": {"dataflow", "node", "key"},
    }
    for method in METHODS.values():
        needed = fields.get(method.scope, set()) | fields.get(method.record, set())
        assert needed <= {*method.params.__struct_fields__}, method.name
        assert method.record != "values" or method.scope == "any", method.name


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
