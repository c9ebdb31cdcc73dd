"""Routes of a node's lines, besides its log file."""

import json
from pathlib import Path
from textwrap import dedent

import pytest
from msgspec.structs import replace

from dorad.daemon.rules.routing import InputRef, Router, Routes, printed_outputs, routes_of
from dorad.dataflow.load import parse
from dorad.dataflow.model import Dataflow
from dorad.dataflow.settings import Logging
from dorad.logs.nodelog import Batch
from dorad.logs.record import parse_line

NOW = 1_000_000.0


def flow(text: str) -> Dataflow:
    return parse(dedent(text), path=Path("dataflow.yml"), environ={})


def batch(node: str, *lines: str, stream: str = "stdout") -> Batch:
    raw = [line.encode() for line in lines]
    records = [parse_line(line, node, stream, NOW) for line in raw]
    return Batch(node, records, raw)


class FakeBroker:
    """A broker that records messages; `silent` outputs have no receiver."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.sent: list[tuple[InputRef, str]] = []

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        self.sent.append((InputRef(node_id, input_id), text))

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        assert output not in self.silent
        self.sent.append((InputRef(node_id, output), text))

    def has_receivers(self, node_id: str, output: str) -> bool:
        return output not in self.silent


TALKER = """
    nodes:
      - {id: talk, path: a.py, outputs: [lines, logs], send_stdout_as: lines, send_logs_as: logs}
"""


def sent(dataflow: Dataflow, lines: Batch, *silent: str) -> list[tuple[InputRef, str]]:
    broker = FakeBroker(*silent)
    Router("id", broker, routes_of(dataflow)).route(lines)
    return broker.sent


def test_send_stdout_as_carries_every_line_with_its_newline() -> None:
    lines = batch("talk", "hello", "WARNING:root:hot")
    assert sent(flow(TALKER), lines, "logs") == [
        (InputRef("talk", "lines"), "hello\n"),
        (InputRef("talk", "lines"), "WARNING:root:hot\n"),
    ]


def test_send_logs_as_carries_log_messages() -> None:
    lines = batch("talk", "hello", "WARNING:root:hot")
    sends = sent(flow(TALKER), lines, "lines")
    assert {target for target, _ in sends} == {InputRef("talk", "logs")}
    found = [json.loads(text) for _, text in sends]
    assert [(m["dataflow_id"], m["node_id"], m["level"], m["message"]) for m in found] == [
        ("id", "talk", "stdout", "hello"),
        ("id", "talk", "WARN", "hot"),
    ]


def test_lines_below_min_log_level_are_sent_by_send_stdout_as_only() -> None:
    lines = batch("talk", "hello")._replace(records=[])
    assert {target.input for target, _ in sent(flow(TALKER), lines)} == {"lines"}


def test_no_message_is_sent_on_an_output_without_receivers() -> None:
    assert sent(flow(TALKER), batch("talk", "hello"), "lines", "logs") == []


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
def test_a_log_input_gets_the_lines_it_selects(
    source: str, node: str, stream: str, line: str, arrives: bool
) -> None:
    found = sent(flow(WATCHED.replace("SOURCE", source)), batch(node, line, stream=stream))
    assert [target for target, _ in found] == ([InputRef("watch", "x")] if arrives else [])


def test_two_nodes_with_log_inputs_from_each_other_get_each_line_once() -> None:
    dataflow = flow("""
        nodes:
          - {id: a, path: a.py, inputs: {logs: dora/logs}}
          - {id: b, path: b.py, inputs: {logs: dora/logs}}
    """)
    assert [target.node for target, _ in sent(dataflow, batch("a", "x"))] == ["b"]


def test_without_log_inputs_there_are_no_routes() -> None:
    assert routes_of(flow("nodes: [{id: a, path: a.py}]")) == {}


def test_inputs_from_other_nodes_and_timers_get_no_log_lines() -> None:
    dataflow = flow("""
        nodes:
          - {id: a, path: a.py, outputs: [o]}
          - {id: b, path: b.py, inputs: {x: a/o, t: dora/timer/secs/1}}
    """)
    assert routes_of(dataflow) == {}


def test_the_router_follows_changes_of_the_dataflow() -> None:
    broker = FakeBroker("logs")
    router = Router("id", broker)
    dataflow = flow(TALKER)
    quiet = replace(dataflow.nodes[0], logging=Logging())
    for text, now in (("one", dataflow), ("two", replace(dataflow, nodes=(quiet,)))):
        router.update(now)
        router.route(batch("talk", text))
    assert broker.sent == [(InputRef("talk", "lines"), "one\n")]


def test_a_node_has_routes_if_its_lines_go_anywhere() -> None:
    dataflow = flow("""
        nodes:
          - {id: cam, path: cam.py}
          - {id: sink, path: sink.py, inputs: {log: dora/logs}}
    """)
    inputs = routes_of(dataflow)["cam"].log_inputs
    assert inputs
    assert not Routes()
    for routes in (Routes(raw="out"), Routes(logs="logs"), Routes(log_inputs=inputs)):
        assert routes


def test_printed_outputs_are_those_of_the_node_and_of_its_operators() -> None:
    dataflow = flow("""
        nodes:
          - {id: talk, path: a.py, outputs: [a, b], send_stdout_as: a, send_logs_as: b}
          - {id: quiet, path: a.py, outputs: [a]}
          - id: n
            operators:
              - {id: x, python: x.py, outputs: [a, b, c], send_stdout_as: a, send_logs_as: b}
              - {id: y, python: y.py, outputs: [a]}
    """)
    assert [printed_outputs(node) for node in dataflow.nodes] == [
        {"a", "b"},
        set(),
        {"x/a", "x/b"},
    ]
