"""Lines of log files."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings

from dorad.logrecord import LogRecord
from dorad.logs.fileline import decode, encode
from dorad.logs.parts import decode_lines
from dorad.logs.record import parse_line
from tests.logs.test_record import lines

WHEN = 1795566578.378


def test_a_line_has_the_keys_of_doras_files() -> None:
    record = LogRecord(WHEN, "warn", "cam", "heiß", "stderr", "driver", {"degrees": 80})
    (line,) = encode([record])
    assert list(json.loads(line).items()) == [
        ("ts", "2026-11-25T00:29:38.378Z"),
        ("level", "warn"),
        ("node", "cam"),
        ("stream", "stderr"),
        ("msg", "heiß"),
        ("target", "driver"),
        ("fields", {"degrees": 80}),
    ]


def test_a_raw_line_has_the_same_keys() -> None:
    raw, structured = encode(
        [LogRecord(WHEN, "stdout", "cam", 'a "b"\n'), LogRecord(WHEN, "info", "cam", "")]
    )
    assert list(json.loads(raw)) == list(json.loads(structured))
    assert json.loads(raw)["msg"] == 'a "b"\n'


def test_neighbours_keep_their_own_node_stream_and_time() -> None:
    records = [
        LogRecord(WHEN, "stdout", "a", "1"),
        LogRecord(WHEN, "stdout", "a", "2"),
        LogRecord(WHEN, "stdout", "a", "3", "stderr"),
        LogRecord(WHEN, "stdout", "b", "4", "stderr"),
        LogRecord(WHEN + 1, "stdout", "b", "5", "stderr"),
    ]
    assert [decode(line) for line in encode(records)] == records


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(lines)
def test_every_record_can_be_written_and_read(line: bytes) -> None:
    record = parse_line(line, "cam", "stderr", WHEN)
    (written,) = encode([record])
    assert written.count(b"\n") == 1
    read = decode(written)
    assert (read.level, read.message, read.target) == (record.level, record.message, record.target)
    assert abs(read.timestamp - record.timestamp) <= 0.001


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"ts":"2026', b"\xff", b'{"ts":"yesterday","level":"info"}']
)
def test_a_foreign_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(line)


def test_a_line_of_another_program_with_an_unknown_level_is_refused() -> None:
    (line,) = encode([LogRecord(WHEN, "info", "cam", "x")])
    with pytest.raises(ValueError, match="loud"):
        decode(line.replace(b'"info"', b'"loud"'))


@pytest.mark.parametrize(
    "odd",
    [
        b'"ts":"0001-01-01T00:00:00+14:00"',
        b'"ts":"9999-12-31T23:59:59-14:00"',
        b'"ts":"' + b"9" * 400 + b'"',
        b'"ts":1e400',
        b'"ts":"2026-01-01T00:00:00Z","line":' + b"9" * 400,
    ],
)
def test_a_malformed_line_is_skipped_and_reading_continues(odd: bytes) -> None:
    good = encode([LogRecord(WHEN, "info", "cam", "good")])[0]
    bad = b"{" + odd + b',"level":"info","node":"cam","stream":"stdout","msg":"odd"}\n'
    assert [record.message for record in decode_lines(bad + good + bad + good)] == ["good"] * 2
