"""Requests and data as frames, and the errors for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dorad.control import codec
from dorad.control import messages as m
from dorad.control.errors import ControlError, as_message
from dorad.control.messages.agent import AGENT_METHODS
from dorad.dataflow.errors import DataflowError, Problem
from dorad.problems import ProblemError
from dorafleet.coordinator.messages import METHODS
from tests.harness.drawing import messages, unbounded_ints


def test_a_request_omits_default_values() -> None:
    """So an older daemon understands clients that do not use newer parameters."""
    frame = codec.encode_request(3, "logs.read", m.LogRead(tail=5, nodes=["a"]))
    assert json.loads(frame) == {
        "id": 3,
        "method": "logs.read",
        "params": {"tail": 5, "nodes": ["a"]},
    }


def test_a_text_that_is_not_utf8_is_named() -> None:
    params = m.Start(descriptor={}, path="/home/b\udce4r/flow.yml")
    with pytest.raises(ControlError, match=r"`/home/b\\udce4r/flow.yml` is not UTF-8") as caught:
        codec.encode_request(1, "dataflow.start", params)
    assert caught.value.code == "bad-request"


def test_a_result_may_have_fields_that_we_do_not_know() -> None:
    started = codec.decode('{"uuid": "u", "colour": "red"}', m.Started, "it")
    assert started == m.Started(uuid="u")


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (m.Stop, '{"grace": "x"}', "`grace` in it: expected `float | null`, got `str`"),
        (m.LogRead, '{"nodes": ["a", 3]}', "`nodes[1]` in it: expected `str`, got `int`"),
        (m.Start, '{"path": "/x"}', "it needs `descriptor`"),
        (m.Start, '{"descriptor": {}, "path": "/x", "env": {"A": 1}}', "`env[...]` in it"),
        (m.NodeList, '{"nodes": [{"node": "a"}]}', "nodes[0] in it needs `dataflow`"),
        (m.DataflowState, '{"uuid": "u", "name": null, "status": "on"}', "`starting`, `running`"),
        (m.Stop, '{"grace": NaN}', "it is not valid JSON"),
        (m.Cancel, '{"id": %s}' % (10**400), "`id` in it: expected `int` <= 9223372036854775807"),
        (m.Cancel, '{"id": -%s}' % ("9" * 5000), "`id` in it: integer value out of range"),
    ],
)
def test_a_decoding_error_names_the_wrong_field(kind: type, text: str, words: str) -> None:
    with pytest.raises(ControlError) as caught:
        codec.decode(text, kind, "it")
    assert words in caught.value.message
    assert caught.value.code == "bad-request"
    assert "\n" not in str(caught.value)


def test_no_message_takes_a_whole_number_of_more_than_64_bits() -> None:
    """Such a number is no float, which every figure, sum and plot needs."""
    methods = METHODS | AGENT_METHODS
    kinds: set[type] = {codec.Arrived, m.Hello, m.Welcome, m.Request, m.Reply, m.Error}
    kinds |= {kind for each in methods.values() for kind in (each.params, each.result)}
    assert [place for kind in kinds for place in unbounded_ints(kind)] == []


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to each number in a value of JSON."""
    if isinstance(value, dict):
        return [place for key, each in value.items() for place in places(each, (*at, key))]
    if isinstance(value, list):
        return [place for index, each in enumerate(value) for place in places(each, (*at, index))]
    return [at] if isinstance(value, int | float) and not isinstance(value, bool) else []


def with_number(value: Any, place: tuple[Any, ...], number: int) -> Any:
    """Return a value of JSON with another number at a place."""
    if not place:
        return number
    key, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = with_number(value[key], tuple(rest), number)
    return copy


KINDS = sorted(
    {kind for each in (METHODS | AGENT_METHODS).values() for kind in (each.params, each.result)},
    key=lambda kind: kind.__name__,
)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_number_of_hundreds_of_digits_anywhere_in_a_message_is_refused(
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    message = msgspec.to_builtins(data.draw(messages(kind)))
    found = places(message)
    assume(found)
    place = data.draw(st.sampled_from(found))
    number = data.draw(st.sampled_from([10**309, 10**400, -(10**400), 10**4000]))
    text = json.dumps(with_number(message, place, number))
    with pytest.raises(ControlError) as caught:
        codec.decode(text, kind, "it")
    assert caught.value.code == "bad-request"
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", [10**400, -(10**308), 10**4299], ids=["400", "308", "4300"])
def test_values_of_any_type_have_no_number_that_is_no_float(number: int) -> None:
    head = '"stream": 1, "topic": "a/b", "sequence": 1, "dropped": 0'
    texts = {
        m.Param: '{"key": "x", "value": [{"a": %s}]}',
        m.TopicHeader: f'{{{head}, "metadata": {{"x": %s}}}}',
        m.ParamSet: '{"node": "a", "key": "x", "value": %s}',
    }
    for kind, text in texts.items():
        with pytest.raises(ControlError, match="more than 308 digits"):
            codec.decode(text % number, kind, "it")
    huge = codec.decode(texts[m.ParamSet] % 10**30, m.ParamSet, "it")
    assert float(huge.value) == 1e30


def test_params_that_are_not_known_are_refused() -> None:
    with pytest.raises(ControlError, match="`daemon\\.status` has no parameter `x`") as caught:
        codec.decode_params(m.DAEMON_STATUS, msgspec.Raw(b'{"x":1}'))
    assert caught.value.hint == "it takes none"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("dataflow.stop", b'{"grace":-1}'),
        ("node.restart", b'{"node":"a","grace":-0.5}'),
        ("dataflow.wait", b'{"dataflow":"a","timeout":-1}'),
    ],
)
def test_negative_times_are_refused(method: str, params: bytes) -> None:
    with pytest.raises(ControlError, match="it must not be negative"):
        codec.decode_params(m.METHODS[method], msgspec.Raw(params))


def test_data_round_trips() -> None:
    header = m.TopicHeader(stream=1, topic="a/b", sequence=2, dropped=3, metadata={"k": 1.5})
    found, data = codec.decode_data(codec.encode_data(header, b"12345678"))
    assert found == header
    assert data == b"12345678"


@pytest.mark.parametrize("frame", [b"", b"\x01", b"\xff\xff\xff\xff{}", b"\x02\x00\x00\x00{}"])
def test_data_that_is_broken_is_refused(frame: bytes) -> None:
    with pytest.raises(ControlError):
        codec.decode_data(frame)


def test_an_answer_that_is_too_large_is_an_error() -> None:
    reply = m.Reply(id=1, result=m.Started(uuid="x" * 100))
    with pytest.raises(ControlError) as caught:
        codec.encode_reply(reply, 100)
    assert caught.value.code == "too-large"


def test_an_error_round_trips_with_all_its_fields() -> None:
    error = ControlError("not-found", "no node `x`", "did you mean `y`?", ["a"])
    frame = codec.encode(m.Reply(id=1, error=as_message(error)))
    arrived = codec.decode(frame, codec.Arrived, "it")
    assert arrived.error is not None
    again = ControlError.of(arrived.error)
    assert (again.code, again.message, again.hint, again.problems) == (
        "not-found",
        "no node `x`",
        "did you mean `y`?",
        ["a"],
    )
    assert str(again) == "no node `x` (did you mean `y`?)"


def test_errors_of_other_packages_round_trip_too() -> None:
    found = Problem("flow.yml", 2, 3, "nodes[0].path", "cannot be empty")
    sent = as_message(DataflowError([found], "the node cannot be started"))
    assert (sent.code, sent.message) == ("refused", "the node cannot be started")
    assert sent.problems == ["flow.yml:2:3: nodes[0].path: cannot be empty"]
    assert as_message(ProblemError("host_key_unknown", "no")).code == "internal"


def test_the_lines_of_an_error_are_its_problems_or_its_one_line() -> None:
    assert ProblemError("busy", "later", "try again").lines == ["later (try again)"]
    assert ProblemError("refused", "two", "hint", ["a", "b"]).lines == ["a", "b"]
