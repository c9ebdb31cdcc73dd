"""Two ends that greet each other over a connection that drops anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dorad.link import hello
from dorad.link.frames import VERSION, FrameError
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


def test_a_newer_version_that_speaks_this_one_is_heard() -> None:
    a = Greeting("dataflow", "a", 1, "b")
    b = Greeting("dataflow", "b", 2, "a")
    newer = msgspec.structs.replace(hello.decode(b.hello({}, 0)), version=VERSION + 1)
    a.hear(newer, 0)
    assert a.heard


def test_another_version_is_refused_and_named() -> None:
    a = Greeting("flow", "a", 1, "b")
    a.appear(2, 0)
    own = hello.decode(a.hello({}, 0))
    assert not a.hear(msgspec.structs.replace(own, version=9, oldest=9, machine="b"), 0)
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
    largest = msgspec.json.encode(good).ljust(hello.MAX_HELLO)
    assert hello.decode(largest) == said
    with pytest.raises(FrameError, match=f"a greeting of {hello.MAX_HELLO + 1} bytes"):
        hello.decode(largest + b" ")


@pytest.mark.parametrize(
    ("place", "most"),
    [
        (0, (1 << 16) - 1),
        (1, (1 << 32) - 1),
        *((place, (1 << 63) - 1) for place in (2, 4, 5, 6, 7)),
    ],
)
def test_each_number_of_a_grant_has_its_bounds_and_is_decoded_at_them(
    place: int, most: int
) -> None:
    good = [1, 1, 1, [1, 1], 1, 1, 1, 1]

    def said(value: int) -> bytes:
        grant = [*good[:place], value, *good[place + 1 :]]
        return msgspec.json.encode(
            {
                **msgspec.to_builtins(Hello(1, "f", "m", 1, 1, None, False, {})),
                "grants": {"s": grant},
            }
        )

    for value in (0, most):
        assert hello.decode(said(value)).grants["s"][place] == value
    for value in (-1, most + 1):
        with pytest.raises(FrameError):
            hello.decode(said(value))


def test_an_end_that_was_refused_is_told_that_nothing_of_it_counts_any_more() -> None:
    a, b = End("a", "b", 1), End("b", "a", 2)
    a.greeting.appear(2, 0.0)
    b.greeting.appear(1, 0.0)
    for _ in range(3):
        for sender, receiver in ((a, b), (b, a)):
            if (data := sender.send(0.0)) is not None:
                receiver.hear(data, 0.0)
    assert a.greeting.up
    other = msgspec.structs.replace(hello.decode(b.greeting.hello({}, 1.0)), version=9, oldest=9)
    assert not a.greeting.hear(other, 1.0)
    assert not a.greeting.up
    said = hello.decode(a.greeting.hello({"s": GRANT}, 1.0))
    assert (said.heard, said.answered, said.grants) == (None, False, {})


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


def both() -> tuple[Greeting, Greeting]:
    return Greeting("flow", "a", 1, "b"), Greeting("flow", "b", 2, "a")


def tell(sender: Greeting, receiver: Greeting, now_s: float, **more: bool) -> bool:
    """Send a greeting that arrives; return whether its grants open the channels."""
    return receiver.hear(hello.decode(sender.hello({"s": GRANT}, now_s, **more)), now_s)


def up() -> tuple[Greeting, Greeting]:
    """Return two machines that have greeted each other, in 1.5 seconds."""
    a, b = both()
    a.appear(2, 0)
    b.appear(1, 0)
    tell(a, b, 0.0)
    assert (a.up, a.heard, b.up, b.heard) == (False, False, False, True)
    assert tell(b, a, 0.25)
    assert tell(a, b, 1.0)
    assert not tell(b, a, 1.5)
    assert (a.up, b.up) == (True, True)
    return a, b


def test_the_round_trip_is_that_of_the_first_answer_in_microseconds() -> None:
    a, b = up()
    assert (a.status().state, a.status().round_trip_us) == ("up", 500_000)
    assert (b.status().state, b.status().round_trip_us) == ("up", 750_000)
    tell(a, b, 30.0)
    tell(b, a, 40.0)
    assert a.status().round_trip_us == 500_000, "it was answered before"
    # After another greeting it is measured again.
    a.restart(50.0)
    tell(a, b, 50.0)
    tell(b, a, 50.125)
    assert a.status().round_trip_us == 125_000


def test_a_new_greeting_knows_of_no_other_end() -> None:
    a = Greeting("flow", "a", 1, "b")
    assert (a.number, a.up, a.heard, a.left, a.missing, a.due_s) == (
        0, False, False, False, True, None,
    )  # fmt: skip
    assert not a.check_answers(1000.0)
    # One that is heard of before it has answered is answered once more.
    b = Greeting("flow", "b", 2, "a")
    a.appear(2, 0.0)
    b.appear(1, 0.0)
    tell(a, b, 0.0)
    assert not hello.decode(b.hello({}, 0.0)).answered


def test_a_machine_is_missing_until_it_is_seen_heard_refused_or_has_left() -> None:
    a, b = both()
    assert a.missing
    assert a.status("why").reason == "no link process of b for this dataflow has been seen; why"
    assert "dorafleet router" in a.status().reason
    a.appear(2, 0)
    assert (a.missing, a.status().state) == (False, "greeting")
    a.vanish(2)
    assert a.missing
    tell(b, a, 0.0, leaving=True)
    assert (a.missing, a.left, a.status().state) == (False, True, "absent")
    assert a.status().reason == "the dataflow has ended on b"
    a.appear(2, 0)
    assert not a.left
    a.hear(msgspec.structs.replace(hello.decode(b.hello({}, 0)), version=9, oldest=9), 0)
    a.lose()
    assert (a.missing, a.status().state) == (False, "refused")
    other, _ = up()
    assert not other.missing
    other.lose()
    assert (other.missing, other.up, other.heard, other.due_s) == (True, False, False, None)


def test_a_greeting_is_repeated_until_it_is_answered() -> None:
    a, b = both()
    a.announce(0.0)
    assert a.due_s is None, "there is no other end yet"
    a.appear(2, 5.0)
    assert (a.due(4.9), a.due(5.0)) == (False, True)
    a.hello({}, 5.0)
    assert a.due_s == 5.0 + REPEAT_S
    a, b = up()
    assert a.due_s is None
    a.announce(7.0)
    assert a.due_s == 7.0
    a.hello({}, 7.0)
    assert a.due_s is None
    # One that is refused is not greeted again.
    a.hear(msgspec.structs.replace(hello.decode(b.hello({}, 8.0)), version=9, oldest=9), 8.0)
    a.restart(9.0)
    a.hello({}, 9.0)
    assert a.due_s is None


def test_a_greeting_offers_nothing_before_the_other_end_was_heard() -> None:
    a, b = both()
    a.appear(2, 0)
    first = hello.decode(a.hello({"s": GRANT}, 0))
    assert (first.grants, first.heard, first.answered, first.number) == ({}, None, False, 1)
    a, b = up()
    later = hello.decode(a.hello({"s": GRANT}, 0))
    assert (later.grants, later.heard, later.answered) == ({"s": GRANT}, (2, b.number), True)


def test_a_process_that_appears_again_is_not_greeted_again_and_another_one_is() -> None:
    a, _ = up()
    number = a.number
    a.appear(2, 3.0)
    assert (a.up, a.number) == (True, number)
    a.appear(3, 3.0)
    assert (a.up, a.heard, a.number, a.due_s) == (False, False, number + 1, 3.0)


def test_a_process_that_is_heard_before_it_is_seen_takes_the_place_of_the_one_before() -> None:
    a, _ = up()
    number = a.number
    other = Greeting("flow", "b", 3, "a")
    other.appear(1, 4.0)
    assert not tell(other, a, 4.0)
    assert (a.number, a.up, a.due_s) == (number + 1, False, 4.0)
    assert not a.vanish(2), "the one before counts no more"
    assert a.vanish(3)


def test_each_answer_that_says_something_new_is_answered() -> None:
    a, b = up()
    assert not tell(b, a, 3.0), "it is the same greeting"
    assert a.due_s is None
    b.restart(4.0)
    assert tell(b, a, 4.0)
    assert a.due_s == 4.0
    # One that does not know that it was heard, although it is not new.
    a.hello({}, 4.0)
    assert a.due_s is None
    assert not tell(b, a, 5.0)
    assert a.due_s == 5.0


def test_no_new_session_is_asked_for_while_the_other_end_answers_is_refused_or_has_left() -> None:
    a, b = up()
    assert not a.check_answers(0)
    assert not a.check_answers(2 * UNANSWERED_S)
    a.restart(20)
    assert not a.check_answers(20)
    assert not a.check_answers(20 + UNANSWERED_S - 0.1)
    assert a.check_answers(20 + UNANSWERED_S)
    tell(a, b, 30)
    tell(b, a, 30)
    assert a.up
    assert not a.check_answers(40)
    a.restart(50)
    assert not a.check_answers(50), "the time begins again"
    assert a.check_answers(50 + UNANSWERED_S), "and is as short as at first"
    a.hear(msgspec.structs.replace(hello.decode(b.hello({}, 60)), version=9, oldest=9), 60)
    assert not a.check_answers(60)
    assert not a.check_answers(1000)


def test_a_refusal_is_over_once_the_other_end_says_what_fits() -> None:
    a, b = both()
    a.appear(2, 0)
    b.appear(1, 0)
    said = hello.decode(b.hello({}, 0))
    a.hear(msgspec.structs.replace(said, dataflow="other"), 0)
    assert a.status().state == "refused"
    a.hear(said, 1)
    assert (a.status().state, a.missing) == ("greeting", False)


def test_what_another_process_of_the_machine_says_of_its_end_is_ignored() -> None:
    a, b = up()
    said = hello.decode(b.hello({}, 3, leaving=True))
    assert not a.hear(msgspec.structs.replace(said, incarnation=9), 3)
    assert (a.left, a.up) == (False, True)
    assert not a.hear(said, 3)
    assert (a.left, a.up, a.heard, a.due_s) == (True, False, False, None)
