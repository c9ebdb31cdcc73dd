"""Received frames are matched to their requests."""

import json

import msgspec
import pytest

from dorad.control import codec, pending
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.faults import coordinator_at
from dorad.control.pending import END, PendingRequests, check_welcome
from dorad.control.target import Tcp

EVENT = {"at": 1.0, "dataflow": "u", "what": "node-started"}


def frame(id_: int | None, **fields: object) -> str:
    return json.dumps({"id": id_, **fields})


def test_each_answer_goes_to_its_request() -> None:
    requests = PendingRequests()
    first, _ = requests.add(m.DATAFLOW_LIST, m.Nothing())
    second, _ = requests.add(m.NODE_LIST, m.Ref())
    requests.dispatch(frame(second.id, result={"nodes": []}))
    assert (len(first), len(second)) == (0, 1)
    assert second.take() == m.NodeList(nodes=[])


def test_an_error_is_raised_when_its_result_is_read() -> None:
    requests = PendingRequests()
    request, _ = requests.add(m.DATAFLOW_LIST, m.Nothing())
    requests.dispatch(frame(request.id, error={"code": "busy", "message": "no"}))
    with pytest.raises(ControlError, match="no"):
        request.take()


def test_a_stream_is_its_events_and_its_end() -> None:
    requests = PendingRequests()
    request, _ = requests.add(m.WATCH, m.Watch())
    requests.dispatch(frame(request.id, event=EVENT))
    requests.dispatch(frame(request.id, end=True))
    assert request.take() == m.Event(at=1, dataflow="u", what="node-started")
    assert request.take() is END


def test_data_goes_to_the_stream_in_its_header() -> None:
    requests = PendingRequests()
    request, _ = requests.add(m.TOPIC_SUBSCRIBE, m.TopicSubscribe())
    header = m.TopicHeader(stream=request.id, topic="a/b", sequence=1, dropped=0, metadata={})
    requests.dispatch(codec.encode_data(header, b"x"))
    assert request.take() == (header, memoryview(b"x"))


def test_answers_to_a_dropped_request_are_ignored() -> None:
    requests = PendingRequests()
    request, _ = requests.add(m.WATCH, m.Watch())
    cancel = requests.drop(request)
    assert cancel is not None
    assert json.loads(cancel)["params"] == {"id": request.id}
    assert requests.dispatch(frame(request.id, event=EVENT)) is None
    assert requests.dispatch(frame(request.id, end=True)) is None
    assert len(request) == 0
    assert requests.drop(request) is None, "what is over is not cancelled"


def test_an_unread_stream_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_WAITING", 3)
    requests = PendingRequests()
    request, _ = requests.add(m.WATCH, m.Watch())
    answers = [requests.dispatch(frame(request.id, event=EVENT)) for _ in range(5)]
    assert [answer is not None for answer in answers] == [False, False, False, True, False]
    for _ in range(3):
        request.take()
    with pytest.raises(ControlError) as caught:
        request.take()
    assert caught.value.code == "too-slow"


def test_decoded_events_that_wait_are_bounded_by_the_memory_that_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = frame(1, event=EVENT)
    monkeypatch.setattr(pending, "MAX_BYTES_WAITING", 3 * pending.DECODED * len(sent))
    requests = PendingRequests()
    requests.add(m.WATCH, m.Watch())
    answers = [requests.dispatch(sent) for _ in range(4)]
    assert [answer is not None for answer in answers] == [False, False, False, True]


def test_an_answer_of_the_wrong_form_fails_its_request_only() -> None:
    requests = PendingRequests()
    request, _ = requests.add(m.NODE_LIST, m.Ref())
    requests.dispatch(frame(request.id, result={"nodes": 3}))
    with pytest.raises(ControlError, match="`nodes` in the result"):
        request.take()


HEADER = m.TopicHeader(stream=1, topic="a/b", sequence=1, dropped=0, metadata={})


@pytest.mark.parametrize(
    ("method", "params", "sent"),
    [
        (m.NODE_LIST, m.Ref(), frame(1, event={"nodes": []})),
        (m.NODE_LIST, m.Ref(), frame(1, end=True)),
        (m.NODE_LIST, m.Ref(), frame(1)),
        (m.NODE_LIST, m.Ref(), codec.encode_data(HEADER, b"x")),
        (m.WATCH, m.Watch(), frame(1, result=EVENT)),
        (m.WATCH, m.Watch(), frame(1)),
        (m.WATCH, m.Watch(), codec.encode_data(HEADER, b"x")),
        (m.TOPIC_SUBSCRIBE, m.TopicSubscribe(), frame(1, event=msgspec.to_builtins(HEADER))),
        (m.TOPIC_SUBSCRIBE, m.TopicSubscribe(), frame(1, result=msgspec.to_builtins(HEADER))),
    ],
)
def test_an_answer_of_another_kind_ends_its_request_with_an_error(
    method: m.AnyMethod, params: m.Struct, sent: str | bytes
) -> None:
    requests = PendingRequests()
    request, _ = requests.add(method, params)
    requests.dispatch(sent)
    with pytest.raises(ControlError, match=f"the answer to `{method.name}` is of another kind"):
        request.take()
    assert requests.dispatch(sent) is None, "it has ended"
    assert len(request) == 0


def test_an_error_for_no_request_is_raised() -> None:
    requests = PendingRequests()
    with pytest.raises(ControlError, match="what is that"):
        requests.dispatch(frame(None, error={"code": "bad-request", "message": "what is that"}))


def test_a_request_that_is_too_large_is_not_sent() -> None:
    requests = PendingRequests()
    with pytest.raises(ControlError) as caught:
        requests.add(m.TOPIC_PUBLISH, m.TopicPublish(topic="a/b", data=["x" * (4 << 20)]))
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"welcome": "dorad 9", "protocol": 2}', "version"),
        ('{"id": null, "error": {"code": "version", "message": "old"}}', "version"),
        ('{"id": 1, "result": {}}', "unavailable"),
        ("no", "unavailable"),
        (b"no", "unavailable"),
    ],
)
def test_a_daemon_that_sends_no_welcome(first: str | bytes, code: str) -> None:
    with pytest.raises(ControlError) as caught:
        check_welcome(first, coordinator_at(Tcp("10.0.0.1", 6013)))
    assert caught.value.code == code
    if code == "unavailable":
        where = "the coordinator at 10.0.0.1 port 6013 does not answer like one: its first frame"
        assert str(caught.value).startswith(where)
