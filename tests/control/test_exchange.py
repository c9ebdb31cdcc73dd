"""How what arrives finds the request that it belongs to."""

from __future__ import annotations

import json

import pytest

from dorad.control import codec, pending
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.pending import END, PendingRequests, check_welcome

EVENT = {"at": 1.0, "dataflow": "u", "what": "node-started"}


def frame(id_: int | None, **fields: object) -> str:
    return json.dumps({"id": id_, **fields})


def test_each_answer_goes_to_its_request() -> None:
    desk = PendingRequests()
    first, _ = desk.ask("dataflow.list", m.Nothing())
    second, _ = desk.ask("node.list", m.Ref())
    desk.arrive(frame(second.id, result={"nodes": []}))
    assert (len(first), len(second)) == (0, 1)
    assert second.take() == m.NodeList(nodes=[])


def test_an_error_is_raised_when_it_is_taken() -> None:
    desk = PendingRequests()
    ask, _ = desk.ask("dataflow.list", m.Nothing())
    desk.arrive(frame(ask.id, error={"code": "busy", "message": "no"}))
    with pytest.raises(ControlError, match="no"):
        ask.take()


def test_a_stream_is_its_events_and_its_end() -> None:
    desk = PendingRequests()
    ask, _ = desk.ask("watch", m.Watch())
    desk.arrive(frame(ask.id, event=EVENT))
    desk.arrive(frame(ask.id, end=True))
    assert ask.take() == m.Event(at=1, dataflow="u", what="node-started")
    assert ask.take() is END


def test_data_goes_to_the_stream_in_its_header() -> None:
    desk = PendingRequests()
    ask, _ = desk.ask("topic.subscribe", m.TopicSubscribe())
    header = m.TopicHeader(stream=ask.id, topic="a/b", sequence=1, dropped=0, metadata={})
    desk.arrive(codec.encode_data(header, b"x"))
    assert ask.take() == (header, memoryview(b"x"))


def test_what_comes_for_a_request_that_was_dropped_is_ignored() -> None:
    desk = PendingRequests()
    ask, _ = desk.ask("watch", m.Watch())
    cancel = desk.drop(ask)
    assert cancel is not None
    assert json.loads(cancel)["params"] == {"id": ask.id}
    assert desk.arrive(frame(ask.id, event=EVENT)) is None
    assert desk.arrive(frame(ask.id, end=True)) is None
    assert len(ask) == 0
    assert desk.drop(ask) is None, "what is over is not cancelled"


def test_a_stream_that_nobody_reads_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_WAITING", 3)
    desk = PendingRequests()
    ask, _ = desk.ask("watch", m.Watch())
    answers = [desk.arrive(frame(ask.id, event=EVENT)) for _ in range(5)]
    assert [answer is not None for answer in answers] == [False, False, False, True, False]
    for _ in range(3):
        ask.take()
    with pytest.raises(ControlError) as caught:
        ask.take()
    assert caught.value.code == "too-slow"


def test_an_answer_of_the_wrong_form_fails_its_request_only() -> None:
    desk = PendingRequests()
    ask, _ = desk.ask("node.list", m.Ref())
    desk.arrive(frame(ask.id, result={"nodes": 3}))
    with pytest.raises(ControlError, match="`nodes` in the result"):
        ask.take()


def test_an_error_for_no_request_is_raised() -> None:
    desk = PendingRequests()
    with pytest.raises(ControlError, match="what is that"):
        desk.arrive(frame(None, error={"code": "bad-request", "message": "what is that"}))


def test_a_wrong_request_is_not_sent() -> None:
    desk = PendingRequests()
    with pytest.raises(ControlError, match="there is no method"):
        desk.ask("node.lst", m.Ref())
    with pytest.raises(ControlError, match="takes Ref, not Nothing"):
        desk.ask("node.list", m.Nothing())
    with pytest.raises(ControlError) as caught:
        desk.ask("topic.publish", m.TopicPublish(topic="a/b", data=["x" * (4 << 20)]))
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"welcome": "dorad 9", "protocol": 2}', "version"),
        ('{"id": null, "error": {"code": "version", "message": "old"}}', "version"),
        ('{"id": 1, "result": {}}', "bad-request"),
        ("no", "bad-request"),
        (b"no", "bad-request"),
    ],
)
def test_a_daemon_that_does_not_welcome_us(first: str | bytes, code: str) -> None:
    with pytest.raises(ControlError) as caught:
        check_welcome(first)
    assert caught.value.code == code
