"""What a bridge asks of ROS 2: decisions on data."""

import pytest

from dorad.ros2.counts import MAX_PUBLISHERS, Gaps
from dorad.ros2.qos import DEPTH, Profile, fits, offered, requested


def peer(*, reliable: bool = True, transient_local: bool = False) -> Profile:
    return Profile(reliable, transient_local, None, "automatic", None)


@pytest.mark.parametrize(
    ("publishers", "reliable", "transient_local"),
    [
        ([], True, False),
        ([peer()], True, False),
        ([peer(reliable=False)], False, False),
        ([peer(), peer(reliable=False)], False, False),
        ([peer(transient_local=True)], True, True),
        ([peer(), peer(transient_local=True)], True, False),
    ],
)
def test_a_subscription_asks_for_what_all_publishers_offer(
    publishers: list[Profile], reliable: bool, transient_local: bool
) -> None:
    found = requested({}, publishers)
    assert (found.reliable, found.transient_local, found.depth) == (
        reliable,
        transient_local,
        DEPTH,
    )


def test_a_publisher_fits_unless_it_offers_less_than_is_requested() -> None:
    plain, strict = peer(reliable=False), peer(transient_local=True)
    assert fits(strict, plain)
    assert fits(plain, plain)
    assert not fits(plain, peer())
    assert not fits(peer(), strict)


def test_the_file_has_the_last_word() -> None:
    declared = {
        "reliable": True,
        "durability": "volatile",
        "keep_last": 7,
        "liveliness": "manual_by_topic",
        "lease_duration": 2.0,
    }
    wanted = Profile(True, False, 7, "manual_by_topic", 2.0)
    assert requested(declared, [peer(reliable=False, transient_local=True)]) == wanted
    assert offered(declared) == wanted
    assert requested({"keep_all": True}, []).depth == 0


def test_a_publisher_is_reliable_which_every_subscription_accepts() -> None:
    assert offered({}) == Profile(True, False, DEPTH, "automatic", None)


def publisher(number: int) -> bytes:
    return number.to_bytes(16)


def test_missing_messages_are_counted_for_each_publisher() -> None:
    gaps = Gaps()
    assert [gaps.before(publisher(1), each) for each in (5, 6, 9, 10)] == [0, 0, 2, 0]
    assert gaps.before(publisher(2), 100) == 0
    assert gaps.before(publisher(1), 12) == 1
    assert gaps.before(publisher(1), 1) == 0  # it starts again


def test_publishers_that_come_and_go_take_no_more_memory() -> None:
    gaps = Gaps()
    for each in range(10 * MAX_PUBLISHERS):
        gaps.before(publisher(each), 1)
    assert len(gaps._last) == MAX_PUBLISHERS
    assert gaps.before(publisher(10 * MAX_PUBLISHERS - 1), 3) == 1
