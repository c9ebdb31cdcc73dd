"""From log lines to log records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk.resources import Resource

from dorad.logrecord import LogRecord
from dorad.telemetry.logs import MAX_FIELDS, MAX_VALUE, log_record

from .collector import attributes

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def encoded(**changes):
    """Return a line as a collector sees it."""
    fields = {"timestamp": 12.5, "level": "stdout", "node": "camera", "message": "hello"}
    request = encode_logs([log_record(LogRecord(**(fields | changes)), Resource({}))])
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    return record


@pytest.mark.parametrize(
    ("level", "stream", "severity"),
    [
        ("trace", "stdout", 1),
        ("debug", "stdout", 5),
        ("info", "stdout", 9),
        ("warn", "stdout", 13),
        ("error", "stdout", 17),
        ("stdout", "stdout", 9),
        ("stdout", "stderr", 13),
    ],
)
def test_severity_is_that_of_the_line_or_else_of_its_stream(level, stream, severity):
    record = encoded(level=level, stream=stream)
    assert record.severity_number == severity
    assert record.severity_text == ("" if level == "stdout" else level)
    assert attributes(record)["log.iostream"] == stream
    assert record.time_unix_nano == 12_500_000_000


def test_ids_of_a_trace_are_those_of_the_record():
    record = encoded(fields={"trace_id": TRACE, "span_id": SPAN})
    assert (record.trace_id.hex(), record.span_id.hex()) == (TRACE, SPAN)


@pytest.mark.parametrize(
    ("trace", "span"),
    [
        (TRACE, None),
        (TRACE, 7),
        (TRACE.upper(), SPAN),
        ("0" * 32, SPAN),
        (TRACE, "0" * 16),
        (TRACE + "0", SPAN),
        ({}, []),
        ("", ""),
        (TRACE + "\n", SPAN),
    ],
)
def test_a_broken_context_stays_an_attribute(trace, span):
    record = encoded(fields={"trace_id": trace, "span_id": span})
    assert (record.trace_id, record.span_id) == (b"", b"")
    assert "trace_id" in attributes(record)


def test_source_and_fields_are_attributes():
    record = encoded(
        target="camera.driver",
        file="camera.py",
        line=12,
        module_path="camera",
        fields={"joint": 3, "big": 1 << 70, "nested": {"a": [1]}, "ok": True, "none": None},
    )
    assert attributes(record) == {
        "joint": 3,
        "big": str(1 << 70),
        "nested": '{"a":[1]}',
        "ok": True,
        "none": "null",
        "log.iostream": "stdout",
        "dora.log.target": "camera.driver",
        "code.file.path": "camera.py",
        "code.line.number": 12,
        "code.module": "camera",
    }


def test_a_line_with_too_much_is_bounded():
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    fields = {f"f{each}": each for each in range(MAX_FIELDS + 9)} | {"f0": deep, "f1": "x" * 99_999}
    found = attributes(encoded(fields=fields))
    assert found["dora.log.fields_left_out"] == 9
    assert found["f0"] == "(nested too deeply)"
    assert len(found["f1"]) == MAX_VALUE


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=10,
)


@pytest.mark.long
@given(st.text(st.characters()), st.dictionaries(st.text(st.characters()), json))
def test_every_line_can_be_encoded(message, fields):
    record = encoded(message=message, fields=fields)
    assert record.body.WhichOneof("value") == "string_value"
