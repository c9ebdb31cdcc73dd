import time
from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from dorad.node.clock import Clock, as_datetime

STAMPS = st.integers(0, 2**62)


@given(st.lists(st.one_of(st.none(), STAMPS), min_size=1))
def test_a_timestamp_is_later_than_all_given_and_seen(seen: list[int | None]) -> None:
    clock = Clock()
    newest = 0
    for stamp in seen:
        if stamp is None:
            now = clock.now()
            assert now > newest
            newest = now
        else:
            clock.saw(stamp)
            newest = max(newest, stamp)
    assert clock.now() > newest


def test_a_timestamp_is_the_wall_clock_when_nothing_newer_was_seen() -> None:
    before = time.time_ns()
    assert before <= Clock().now() <= time.time_ns()


def test_an_old_timestamp_changes_nothing() -> None:
    clock = Clock()
    first = clock.now()
    clock.saw(first - 10**12)
    assert clock.last == first


@given(st.integers(0, 4 * 10**18))
def test_a_datetime_is_utc_and_right_to_the_microsecond(stamp: int) -> None:
    moment = as_datetime(stamp)
    assert moment.tzinfo is UTC
    assert abs(moment.timestamp() - stamp / 1e9) < 2e-6
