"""Records as entries of the journal, and back."""

import json

import pytest

from dorad.logrecord import RAW, LogRecord
from dorad.logs.filter import LEVELS
from dorad.logs.journal.entry import Origin, encode
from dorad.logs.journal.reader import JournalEntry, parse
from dorad.logs.journal.sender import service_of
from tests.logs.journald import fields

ORIGIN = Origin("u-1", "robot", "cam", "stdout", "dorad-robot-cam-1.service")


def read_back(entry: bytes) -> JournalEntry:
    found = parse(json.dumps({"__CURSOR": "c", **fields(entry)}).encode())
    assert found is not None
    return found


def test_a_plain_line() -> None:
    record = LogRecord(1764045000.25, RAW, "cam", "no frame", "stdout")
    assert fields(encode(ORIGIN, [record], 7)) == {
        "SYSLOG_IDENTIFIER": "cam",
        "DORA_DATAFLOW": "u-1",
        "DORA_DATAFLOW_NAME": "robot",
        "DORA_NODE": "cam",
        "DORA_STREAM": "stdout",
        "OBJECT_SYSTEMD_UNIT": "dorad-robot-cam-1.service",
        "PRIORITY": "6",
        "DORA_LEVEL": "stdout",
        "DORA_SEQ": "7",
        "DORA_TIME": "1764045000250000",
        "MESSAGE": "no frame",
    }


@pytest.mark.parametrize(
    ("level", "stream", "priority"),
    [
        ("error", "stdout", "3"),
        ("warn", "stdout", "4"),
        ("info", "stderr", "6"),
        ("debug", "stdout", "7"),
        ("trace", "stdout", "7"),
        (RAW, "stdout", "6"),
        (RAW, "stderr", "4"),
    ],
)
def test_priorities(level: str, stream: str, priority: str) -> None:
    record = LogRecord(1.0, level, "cam", "x", stream)
    assert fields(encode(ORIGIN, [record], 1))["PRIORITY"] == priority


@pytest.mark.parametrize("level", LEVELS)
def test_a_record_round_trips(level: str) -> None:
    record = LogRecord(
        1764045000.25, level, "cam", "lens is hot" * 9, "stdout", "lens", {"degrees": 71, "ä": [1]},
        "cam.py", 12, "driver.read",
    )  # fmt: skip
    found = read_back(encode(ORIGIN, [record], 3))
    assert found == JournalEntry([record], "cam", "stdout", 3, "c")


def test_a_structured_message_may_have_newlines() -> None:
    record = LogRecord(2.0, "error", "cam", "a\nb=c\n", "stdout", fields={"x": "1\n2"})
    assert read_back(encode(ORIGIN, [record], 3)).records == [record]


def test_joined_lines_are_split_into_lines() -> None:
    origin = Origin("u", None, "cam", "stderr")
    records = [LogRecord(2.0, RAW, "cam", text, "stderr") for text in ("Traceback", "  f", "E: x")]
    entry = encode(origin, records, 1)
    assert fields(entry)["MESSAGE"] == "Traceback\n  f\nE: x"
    assert read_back(entry).records == records


def test_lines_of_the_daemon_have_no_node() -> None:
    record = LogRecord(2.0, "warn", None, "ready")
    entry = encode(Origin("u", None, None, "daemon"), [record], 1)
    assert (fields(entry)["DORA_NODE"], fields(entry)["SYSLOG_IDENTIFIER"]) == ("dora", "dorad")
    assert read_back(entry).records == [record]


def test_fields_that_are_nested_too_deeply_are_left_out() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    record = LogRecord(2.0, "info", "cam", "x", fields=deep)
    entry = fields(encode(ORIGIN, [record], 1))
    assert entry["DORA_FIELDS"] == '{"left_out":"nested too deeply"}'
    while deep:
        deep = deep["a"]


def test_an_entry_as_journalctl_prints_it() -> None:
    # Captured from `journalctl -o json --all` of systemd 257; a message with colours is numbers.
    line = (
        b'{"DORA_STREAM":"stderr","MESSAGE":[27,91,51,49,109,104,105,195,164],"DORA_LEVEL":"stdout"'
        b',"__CURSOR":"s=1;i=2","DORA_SEQ":"1764045000000001","DORA_NODE":"cam","DORA_TIME":'
        b'"1764045000250000","_SOURCE_REALTIME_TIMESTAMP":"1764045000250001","CODE_LINE":"x"}'
    )
    found = parse(line)
    assert found is not None
    assert found.cursor == "s=1;i=2"
    assert found.records == [LogRecord(1764045000.25, RAW, "cam", "\x1b[31mhiä", "stderr")]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"-- No entries --",
        b'{"MESSAGE":"x"}',
        b'{"MESSAGE":null,"DORA_NODE":"a","DORA_STREAM":"stdout","DORA_LEVEL":"info","DORA_TIME":"1","DORA_SEQ":"1"}',
        b'{"MESSAGE":"x","DORA_NODE":"a","DORA_STREAM":"else","DORA_LEVEL":"info","DORA_TIME":"1","DORA_SEQ":"1"}',
        b'{"MESSAGE":"x","DORA_NODE":"a","DORA_STREAM":"stdout","DORA_LEVEL":"loud","DORA_TIME":"1","DORA_SEQ":"1"}',
        b'{"MESSAGE":"x","DORA_NODE":"a","DORA_STREAM":"stdout","DORA_LEVEL":"info","DORA_TIME":"x","DORA_SEQ":"1"}',
        b'{"MESSAGE":"x","DORA_NODE":"a","DORA_STREAM":"stdout","DORA_LEVEL":"info","DORA_TIME":"1"}',
        b'{"MESSAGE":[1e9],"DORA_NODE":"a","DORA_STREAM":"stdout","DORA_LEVEL":"info","DORA_TIME":"1","DORA_SEQ":"1"}',
    ],
)  # fmt: skip
def test_foreign_entries_are_left_out(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    ("cgroups", "service"),
    [
        ("0::/system.slice/dorad.service\n", "dorad.service"),
        ("0::/system.slice/dorad.service/worker\n", "dorad.service"),
        ("0::/dorad.slice/dorad-arm.slice/dorad-arm-cam.service\n", "dorad-arm-cam.service"),
        ("4:cpu:/x\n1:name=systemd:/system.slice/dorad.service\n", "dorad.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", None),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/\n", None),
    ],
)
def test_the_service_of_a_sender_is_its_unit_of_the_machine(
    cgroups: str, service: str | None
) -> None:
    assert service_of(cgroups) == service
