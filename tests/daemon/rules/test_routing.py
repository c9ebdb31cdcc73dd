"""Where a node's lines go, besides its log file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from dorad.daemon.rules.routing import Place, Router, deliveries, routes_of
from dorad.dataflow.load import parse
from dorad.logs.nodelog import Batch
from dorad.logs.record import parse_line

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow

NOW = 1_000_000.0


def flow(text: str) -> Dataflow:
    return parse(dedent(text), path=Path("dataflow.yml"), environ={})


def batch(node: str, *lines: str, stream: str = "stdout") -> Batch:
    raw = [line.encode() for line in lines]
    records = [parse_line(line, node, stream, NOW) for line in raw]  # type: ignore[arg-type]
    return Batch(node, records, raw)


class Mailroom:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        self.sent.append((node_id, input_id, text))


TALKER = """
    nodes:
      - {id: talk, path: a.py, outputs: [lines, logs], send_stdout_as: lines, send_logs_as: logs}
      - {id: raw, path: b.py, inputs: {x: talk/lines}}
      - {id: both, path: b.py, inputs: {l: talk/logs, x: talk/lines}}
"""


def sent(dataflow: Dataflow, lines: Batch) -> list[tuple[Place, str]]:
    return list(deliveries(routes_of(dataflow)[lines.node], lines, "id"))


def test_every_line_goes_out_of_send_stdout_as_with_its_newline() -> None:
    lines = batch("talk", "hello", "WARNING:root:hot")
    found = [(place, text) for place, text in sent(flow(TALKER), lines) if place.input == "x"]
    assert found == [
        (Place("raw", "x"), "hello\n"),
        (Place("both", "x"), "hello\n"),
        (Place("raw", "x"), "WARNING:root:hot\n"),
        (Place("both", "x"), "WARNING:root:hot\n"),
    ]


def test_send_logs_as_carries_log_messages() -> None:
    lines = batch("talk", "hello", "WARNING:root:hot")
    found = [json.loads(text) for place, text in sent(flow(TALKER), lines) if place.input == "l"]
    assert [(m["dataflow_id"], m["node_id"], m["level"], m["message"]) for m in found] == [
        ("id", "talk", "stdout", "hello"),
        ("id", "talk", "WARN", "hot"),
    ]


def test_what_min_log_level_held_back_leaves_through_send_stdout_as_alone() -> None:
    lines = batch("talk", "hello")._replace(records=[])
    assert {place.input for place, _ in sent(flow(TALKER), lines)} == {"x"}


WATCHED = """
    nodes:
      - {id: a, path: a.py}
      - {id: b, path: b.py}
      - {id: watch, path: w.py, inputs: {x: SOURCE}}
"""


@pytest.mark.parametrize(
    ("source", "node", "stream", "line", "arrives"),
    [
        ("dora/logs", "a", "stdout", "plain", True),
        ("dora/logs", "a", "stdout", "DEBUG:root:x", True),
        ("dora/logs", "watch", "stdout", "plain", False),
        ("dora/logs/stdout", "a", "stdout", "plain", True),
        ("dora/logs/info", "a", "stdout", "plain", True),
        ("dora/logs/info", "a", "stdout", "DEBUG:root:x", False),
        ("dora/logs/warn", "a", "stdout", "plain", False),
        ("dora/logs/warn", "a", "stderr", "plain", True),
        ("dora/logs/error", "a", "stderr", "plain", False),
        ("dora/logs/error", "a", "stdout", "ERROR:root:x", True),
        ("dora/logs/info/b", "a", "stdout", "plain", False),
        ("dora/logs/info/b", "b", "stdout", "plain", True),
        ("dora/logs/info/watch", "watch", "stdout", "plain", False),
    ],
)
def test_a_log_input_gets_what_it_asks_for(
    source: str, node: str, stream: str, line: str, arrives: bool
) -> None:
    routes = routes_of(flow(WATCHED.replace("SOURCE", source))).get(node)
    found = list(deliveries(routes, batch(node, line, stream=stream), "id")) if routes else []
    assert [place for place, _ in found] == ([Place("watch", "x")] if arrives else [])


def test_two_nodes_that_watch_each_other_get_each_others_lines_once() -> None:
    dataflow = flow("""
        nodes:
          - {id: a, path: a.py, inputs: {logs: dora/logs}}
          - {id: b, path: b.py, inputs: {logs: dora/logs}}
    """)
    assert [place.node for place, _ in sent(dataflow, batch("a", "x"))] == ["b"]


def test_nobody_listens_where_nobody_asked() -> None:
    assert routes_of(flow("nodes: [{id: a, path: a.py}]")) == {}


def test_the_router_follows_changes_of_the_dataflow() -> None:
    mailroom = Mailroom()
    router = Router("id", mailroom)
    dataflow = flow(TALKER)
    router.update(dataflow)
    router.route(batch("talk", "one"))
    router.update(replace(dataflow, nodes=dataflow.nodes[:2]))
    router.route(batch("talk", "two"))
    assert [(node, text) for node, name, text in mailroom.sent if name == "x"] == [
        ("raw", "one\n"),
        ("both", "one\n"),
        ("raw", "two\n"),
    ]
