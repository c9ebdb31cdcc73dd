"""Parsing structured lines, and keeping the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dorad.logrecord import LogRecord, is_error
from dorad.logs.format import formatter
from dorad.logs.record import parse_level, parse_line

NOW = 1_000_000.0
WHEN = "2026-11-25T00:29:38.378068Z"
WHEN_SECONDS = datetime(2026, 11, 25, 0, 29, 38, 378068, UTC).timestamp()


def parse(line: bytes | dict[str, Any]) -> LogRecord:
    data = json.dumps(line).encode() if isinstance(line, dict) else line
    return parse_line(data, "cam", "stdout", NOW)


def test_a_plain_line_is_a_message_without_severity() -> None:
    assert parse(b"hello  ") == LogRecord(NOW, "stdout", "cam", "hello  ")


def test_a_line_of_our_log_methods_is_parsed() -> None:
    line = {"timestamp": WHEN, "level": "WARN", "node_id": "cam", "message": "hot"}
    assert parse(line) == LogRecord(WHEN_SECONDS, "warn", "cam", "hot")
    more = parse({**line, "target": "driver", "fields": {"degrees": 80, "line": "x"}})
    assert (more.target, more.fields, more.line) == ("driver", {"degrees": 80, "line": "x"}, None)


def test_a_line_belongs_to_the_node_that_wrote_it() -> None:
    line = {"timestamp": WHEN, "level": "info", "node_id": "other", "message": ""}
    assert parse(line).node == "cam"


def test_a_line_of_rusts_tracing_is_parsed() -> None:
    fields = {"file": "/n.py", "line": 6, "target": "root", "message": "py warn", "x": 1}
    record = parse({"timestamp": WHEN, "level": "WARN", "fields": fields, "target": "dora"})
    assert (record.level, record.message, record.target) == ("warn", "py warn", "root")
    assert (record.file, record.line, record.fields) == ("/n.py", 6, {"x": 1})


@pytest.mark.parametrize(
    ("line", "level", "target", "message"),
    [
        (b"WARNING:root:no frame", "warn", "root", "no frame"),
        (b"CRITICAL:a.b-c:", "error", "a.b-c", ""),
        (b"INFO:cam:x:y", "info", "cam", "x:y"),
    ],
)
def test_a_line_of_pythons_logging_keeps_its_severity(
    line: bytes, level: str, target: str, message: str
) -> None:
    assert parse(line) == LogRecord(NOW, level, "cam", message, target=target)


@pytest.mark.parametrize(
    ("line", "level", "target", "message"),
    [
        (b"[INFO] [1700000000.123456789] [talker]: Hello", "info", "talker", "Hello"),
        (b"[FATAL] [12.5] [ns.arm]: [x]: y", "error", "ns.arm", "[x]: y"),
        (b"[talker-1] [WARN] [1700000000.1] [talker]: late", "warn", "talker", "late"),
        (b"[ERROR] [talker-1]: has died [pid 7]", "error", "talker-1", "has died [pid 7]"),
        (b"[WARNING] [launch]: ", "warn", "launch", ""),
    ],
)
def test_a_line_of_ros_2_keeps_its_severity(
    line: bytes, level: str, target: str, message: str
) -> None:
    assert parse(line) == LogRecord(NOW, level, "cam", message, target=target)


@pytest.mark.parametrize(
    "line",
    [
        *(b"Error: x", b"INFO: x", b"ERRORS:a:b", b"INFO:a b:c", b""),
        *(b"[INFO] x", b"[INFO] [cam] x", b"[LOUD] [cam]: x", b"[cam] [INFO]: x"),
    ],
)
def test_similar_lines_are_not_parsed(line: bytes) -> None:
    assert parse(line) == LogRecord(NOW, "stdout", "cam", line.decode())


@pytest.mark.parametrize(
    "line",
    [
        b'{"level":"info"}',
        b'{"timestamp":"2026-11-25T00:00:00Z"}',
        b'{"level":"loud","timestamp":"2026-11-25T00:00:00Z"}',
        b'{"level":"info","timestamp":"yesterday"}',
        b'{"level":3,"timestamp":1}',
        b'{"level":"info","timestamp":NaN}',
        b'{"level":"info","timestamp":true',
        b'{"level":"info","timestamp":1e300}',
        b'{"level":"info","timestamp":"0001-01-01T00:00:00+14:00"}',
        b"{" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_other_json_is_a_plain_line(line: bytes) -> None:
    assert parse(line) == LogRecord(NOW, "stdout", "cam", line.decode())


@pytest.mark.parametrize("number", [False, -1, 10**30, 1.5, "3"])
def test_an_invalid_line_number_is_left_out(number: object) -> None:
    assert parse({"timestamp": WHEN, "level": "info", "message": "", "line": number}).line is None


def test_a_message_that_is_not_a_string_is_shown_as_json() -> None:
    assert parse({"timestamp": WHEN, "level": "info", "message": {"a": 1}}).message == '{"a": 1}'


def test_seconds_are_a_timestamp_too() -> None:
    assert parse({"timestamp": 12.5, "level": "info", "message": ""}).timestamp == 12.5


def test_nanoseconds_and_time_zones_are_read() -> None:
    line = {"timestamp": "2026-11-25T02:29:38.378068123+02:00", "level": "info", "message": ""}
    assert parse(line).timestamp == WHEN_SECONDS


def test_bad_utf8_is_replaced() -> None:
    assert parse(b"a\xffb").message == "a\ufffdb"


@pytest.mark.parametrize("text", ["error", "ERROR", "Critical", "warning", "stdout"])
def test_levels_have_several_spellings(text: str) -> None:
    assert parse_level(text) in {"error", "warn", "stdout"}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(), scalars, max_size=2)
keys = st.sampled_from(["timestamp", "level", "message", "target", "fields", "file", "line", "x"])
lines = st.binary() | st.dictionaries(keys, values).map(
    lambda line: json.dumps({"level": "info", "timestamp": WHEN, **line}).encode()
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is not a failure
@given(lines)
def test_no_line_fails_and_every_record_can_be_written(line: bytes) -> None:
    record = parse(line)
    for kind in ("pretty", "compact", "json"):
        formatter(kind, dataflow_id="d")(record).encode()


def test_half_a_character_in_json_can_be_written() -> None:
    record = parse(b'{"level":"info","timestamp":1,"message":"a\\ud800","fields":{"\\udfff":1}}')
    assert record.message == "a?"
    formatter("json", dataflow_id="d")(record).encode()
    emoji = parse(b'{"level":"info","timestamp":1,"message":"\\ud83d\\ude00"}')
    assert emoji.message == "\U0001f600"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"ERROR joint 3: position 203 deg is beyond its limit", True),
        (b"\x1b[31m[ERROR] [1795.2] [gripper]: no frame\x1b[0m", True),
        (b"2026-11-27 20:41:08 FATAL no memory", True),
        (b"error: no such device", True),
        (b"ERROR:gripper:no frame", True),
        (b'{"level": "error", "timestamp": 1, "message": "no frame"}', True),
        (b"error rate 0.1", False),
        (b"no errors, NOERROR, ERRORS 0", False),
        (b"INFO:gripper:after the last ERROR", False),
        (b"x" * 90 + b" ERROR", False),
        (b"-" * 100_000, False),
    ],
)
def test_a_line_without_a_level_tells_of_an_error_by_its_text(line: bytes, expected: bool) -> None:
    assert is_error(parse_line(line, "gripper", "stdout", 1.0)) is expected
