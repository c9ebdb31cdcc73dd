"""Two ends that greet each other over a connection that drops anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dorad.link import hello
from dorad.link.frames import FrameError
from dorad.link.greeting import MAX_UNANSWERED_S, REPEAT_S, UNANSWERED_S, Greeting
from dorad.link.hello import Grant, Hello, Window

GRANT = Grant(0, 1, 1, Window(1, 1))


class End:
    """One link process, which opens channels when it is told to."""

    def __init__(self, name: str, other: str, incarnation: int) -> None:
        self.greeting = Greeting("flow", name, incarnation, other)
        self.incarnation = incarnation
        self.opened: list[int] = []
        self.offered = 0

    def send(self, now_s: float) -> bytes | None:
        if not self.greeting.due(now_s):
            return None
        grant = GRANT._replace(opening=self.greeting.number)
        return self.greeting.hello({"s": grant}, now_s)

    def hear(self, data: bytes, now_s: float) -> None:
        said = hello.decode(data)
        if self.greeting.hear(said, now_s):
            self.opened.append(said.grants["s"].opening)


@given(st.lists(st.booleans(), max_size=40), st.lists(st.sampled_from("abrs"), max_size=6))
def test_both_ends_come_up_with_the_last_grants_whatever_is_dropped(
    passes: list[bool], disturbances: list[str]
) -> None:
    a, b = End("a", "b", 1), End("b", "a", 2)
    losses = iter(passes)
    now_s = 0.0
    a.greeting.appear(2, now_s)
    b.greeting.appear(1, now_s)
    for step in range(200):
        now_s += REPEAT_S / 3
        if step % 5 == 0 and step // 5 < len(disturbances):
            what = disturbances[step // 5]
            if what == "a":
                a.greeting.restart(now_s)
            elif what == "b":
                b.greeting.restart(now_s)
            elif what == "r":
                b = End("b", "a", b.incarnation + 1)
                b.greeting.appear(1, now_s)
            else:
                a.greeting.vanish(b.incarnation)
                a.greeting.appear(b.incarnation, now_s)
        for sender, receiver in ((a, b), (b, a)):
            data = sender.send(now_s)
            if data is not None and next(losses, True):
                receiver.hear(data, now_s)
    assert a.greeting.up and b.greeting.up
    assert a.greeting.due_s is b.greeting.due_s is None, "they still greet each other"
    assert a.opened[-1] == b.greeting.number
    assert b.opened[-1] == a.greeting.number
    assert a.greeting.status().state == "up"


def test_another_version_is_refused_and_named() -> None:
    a = Greeting("flow", "a", 1, "b")
    a.appear(2, 0)
    own = hello.decode(a.hello({}, 0))
    assert not a.hear(msgspec.structs.replace(own, version=9, machine="b"), 0)
    status = a.status()
    assert status.state == "refused"
    assert "version 9" in status.reason


@pytest.mark.parametrize("change", [{"dataflow": "other"}, {"machine": "c" * 1000}])
def test_a_stranger_is_refused_and_named(change: dict[str, str]) -> None:
    a = Greeting("flow", "a", 1, "b")
    a.appear(2, 0)
    own = hello.decode(a.hello({}, 0))
    said = msgspec.structs.replace(own, **({"machine": "b"} | change))
    assert not a.hear(said, 0)
    assert a.status().state == "refused"
    assert len(a.status().reason) < 300


def test_the_end_of_an_earlier_process_does_not_count() -> None:
    a = Greeting("flow", "a", 1, "b")
    a.appear(2, 0)
    a.appear(3, 0)
    assert not a.vanish(2)
    assert a.vanish(3)
    assert a.status().state == "absent"


@pytest.mark.parametrize("vanished", [False, True])
def test_the_last_greeting_of_a_process_counts_also_after_it_has_vanished(vanished: bool) -> None:
    a, b = Greeting("flow", "a", 1, "b"), Greeting("flow", "b", 2, "a")
    a.appear(2, 0)
    last = hello.decode(b.hello({}, 0, leaving=True))
    if vanished:
        assert a.vanish(2)
    a.hear(last, 0)
    assert a.left
    a.appear(3, 0)
    assert not a.left
    a.hear(last, 0)
    assert not a.left, "a greeting of an earlier process counts"


@given(st.binary(max_size=200))
@example(b'{"x":' + b"[" * 5000)
def test_what_is_no_greeting_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        hello.decode(data)


def test_a_greeting_with_wrong_fields_is_refused() -> None:
    said = Hello(1, "f", "m", 1, 1, None, False, {})
    good = msgspec.to_builtins(said)
    hello.decode(msgspec.json.encode(good))
    numbers = [1 << 16, 1, 1, [1, 1]], [1, 1 << 32, 1, [1, 1]], [1, 1, 1, [-1, 1]]
    wrong = [("number", "x"), ("grants", {"s": [1]}), ("heard", [1]), ("number", -1)]
    for key, value in [*wrong, *(("grants", {"s": each}) for each in numbers)]:
        with pytest.raises(FrameError):
            hello.decode(msgspec.json.encode(good | {key: value}))
    with pytest.raises(FrameError):
        hello.decode(b" " * (hello.MAX_HELLO + 1))


def test_a_machine_that_never_answers_asks_for_new_sessions_ever_more_rarely() -> None:
    a = Greeting("flow", "a", 1, "b")
    assert not a.check_answers(0), "it is not there"
    now_s, waited = 0.0, []
    for _ in range(9):
        a.appear(2, now_s)
        begun_s = now_s
        while not a.check_answers(now_s):
            now_s += 1
        waited.append(now_s - begun_s)
        a.lose()
    assert waited[:3] == [UNANSWERED_S, 2 * UNANSWERED_S, 4 * UNANSWERED_S]
    assert waited[-1] == waited[-2] == MAX_UNANSWERED_S

    b = End("b", "a", 2)
    a.appear(2, now_s)
    for _ in range(4):
        now_s += REPEAT_S
        for sender, receiver in ((a, b.greeting), (b.greeting, a)):
            receiver.hear(hello.decode(sender.hello({"s": GRANT}, now_s)), now_s)
    assert a.up
    assert not a.check_answers(now_s + 1000)
    a.vanish(2)
    a.appear(2, now_s)
    assert not a.check_answers(now_s)
    assert a.check_answers(now_s + UNANSWERED_S), "an answer resets the time"
