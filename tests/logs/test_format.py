"""Records as people and programs read them."""

import json
import re
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from dorad.logrecord import LogRecord
from dorad.logs.format import Format, formatter

WHEN = 1795566578.378068
WARN = LogRecord(WHEN, "warn", "cam", "hot", target="driver", fields={"degrees": 80})
RAW = LogRecord(WHEN, "stdout", "cam", "hello")
OURS = LogRecord(WHEN, "info", None, "all nodes are ready")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_pretty_is_time_level_node_target_message() -> None:
    text = formatter("pretty", dataflow_id="d")
    assert text(WARN) == "00:29:38 WARN   cam: driver hot"
    assert text(RAW) == "00:29:38 stdout cam: hello"
    assert text(replace(RAW, stream="stderr")) == "00:29:38 stderr cam: hello"
    assert text(OURS) == "00:29:38 INFO   [dora]: all nodes are ready"


def test_compact_leaves_out_the_target_and_the_padding() -> None:
    assert formatter("compact", dataflow_id="d")(WARN) == "00:29:38 WARN cam: hot"


def test_times_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert formatter("pretty", dataflow_id="d")(RAW).startswith("09:29:38 ")


def test_json_has_the_keys_of_a_log_message() -> None:
    record = LogRecord(WHEN, "warn", "cam", "heiß", "stderr", "t", {"a": 1}, "f.py", 3, "m.p")
    line = formatter("json", dataflow_id="flow", daemon_id="here")(record)
    assert "heiß" in line
    assert list(json.loads(line).items()) == [
        ("build_id", None),
        ("dataflow_id", "flow"),
        ("node_id", "cam"),
        ("daemon_id", "here"),
        ("level", "WARN"),
        ("target", "t"),
        ("module_path", "m.p"),
        ("file", "f.py"),
        ("line", 3),
        ("message", "heiß"),
        ("timestamp", "2026-11-25T00:29:38.378068Z"),
        ("fields", {"a": 1}),
    ]


def test_json_stays_one_line_whatever_the_message() -> None:
    line = formatter("json", dataflow_id="d")(LogRecord(WHEN, "info", "cam", "a\nb"))
    assert "\n" not in line
    assert json.loads(line)["message"] == "a\nb"


def test_raw_lines_keep_their_level_in_json() -> None:
    assert json.loads(formatter("json", dataflow_id="d")(RAW))["level"] == "stdout"


def test_colour_changes_nothing_but_the_colour() -> None:
    plain = formatter("pretty", dataflow_id="d")
    coloured = formatter("pretty", dataflow_id="d", color=True)
    for record in (WARN, RAW, OURS):
        assert ESCAPE.sub("", coloured(record)) == plain(record)
        assert ESCAPE.search(coloured(record))


def test_json_is_never_coloured() -> None:
    assert "\x1b" not in formatter("json", dataflow_id="d", color=True)(WARN)


def test_every_node_has_its_colour_and_keeps_it() -> None:
    nodes = [f"n{number}" for number in range(10)]
    text = formatter("pretty", dataflow_id="d", nodes=nodes, color=True)

    def color(node: str) -> str:
        line = text(LogRecord(WHEN, "info", node, "x"))
        return line[: line.index(node)].rpartition("\x1b")[2]

    assert len({color(node) for node in nodes}) == 10
    assert color("stranger") == color("stranger")


@pytest.mark.parametrize("kind", ["pretty", "compact"])
def test_control_characters_of_a_node_are_shown_and_not_sent(kind: Format) -> None:
    record = LogRecord(
        WHEN, "warn", "c\x1b[2J", "\x1b]0;title\x07 \x9b31m \u202e\ta\rb\x7f", target="t\x1b[H"
    )
    line = formatter(kind, dataflow_id="d")(record)
    assert line.endswith(r"\x1b]0;title\x07 \x9b31m \u202e" + "\t" + r"a\rb\x7f")
    assert line.replace("\t", "").isprintable()
    coloured = formatter(kind, dataflow_id="d", color=True)(record)
    assert ESCAPE.sub("", coloured) == line


def test_a_message_of_several_lines_cannot_forge_a_line_of_another_node() -> None:
    record = LogRecord(WHEN, "info", "cam", "first\n00:29:38 ERROR  [dora]: forged")
    lines = formatter("pretty", dataflow_id="d")(record).split("\n")
    assert lines == ["00:29:38 INFO   cam: first", "    00:29:38 ERROR  [dora]: forged"]


@pytest.mark.parametrize("seconds", [1e300, -1e300])
def test_a_time_that_no_calendar_has_is_shown_as_unknown(seconds: float) -> None:
    record = LogRecord(seconds, "info", "cam", "hello")
    assert formatter("pretty", dataflow_id="d")(record) == "--:--:-- INFO   cam: hello"
    line = json.loads(formatter("json", dataflow_id="d")(record))
    assert line["timestamp"] == "1970-01-01T00:00:00.000000Z"


def test_json_escapes_terminal_controls_and_keeps_their_value() -> None:
    message = "\x1b[2J \x9b2J \u202e \x7f"
    line = formatter("json", dataflow_id="d")(LogRecord(WHEN, "info", "cam", message))
    assert line.isprintable()
    assert json.loads(line)["message"] == message
