"""The orders of a rollout to its robots, and what it waits for: single decisions."""

import pytest
from msgspec.structs import replace

from dorad.control.messages.releases import Lease
from dorafleet.rollout.decide import CLOSED, PAUSED, YIELDS, decide, goes_back, is_over
from dorafleet.rollout.instances import YIELD_S
from dorafleet.rollout.model import Member, Seen
from dorafleet.rollout.phases import DEFER_S, TOO_BUSY
from dorafleet.rollout.steps import Orders

from .test_instances import STRATEGY, leaving, member, seen, view
from .world import NEW, OLD, START

FINE = seen("confirmed", running=NEW)
AWAY = Seen(away_for=DEFER_S)


def robot(name="r1", order="", verdict="", batch=1, **more):
    more.setdefault("generation", 5)
    return Member(name, batch, before=more.pop("before", OLD), order=order, verdict=verdict, **more)


OPEN = (robot("r9", "stage"), Seen())
"""A robot for which the rollout waits."""


def decided(*pairs, strategy=None, **more):
    return decide(view(*pairs, strategy=replace(STRATEGY, **(strategy or {})), **more))


def orders(*pairs, **more):
    """Return kind, robots and reason of the next orders; None without any."""
    step = decided(*pairs, **more).step
    return (step.kind, *step.robots, step.reason) if isinstance(step, Orders) else None


# -- forward


@pytest.mark.parametrize(
    ("phase", "first", "look", "staged"),
    [
        ("rolling", {}, seen("confirmed"), ("r1",)),
        ("rolling", {}, seen("probation"), ()),
        ("rolling", {}, Seen(reachable=True), ("r1",)),
        # What cannot be reached soon does not keep the next batch.
        ("rolling", {}, AWAY, ("r2",)),
        ("rolling", {}, Seen(away_for=DEFER_S - 0.1), ()),
        ("rolling", {"lost": True}, AWAY, ("r1", "r2")),
        ("rolling", {}, Seen(reachable=True, owned=False), ("r2",)),
        ("rolling", {"order": "stage"}, seen("pending"), ()),
        ("rolling", {"order": "switch", "verdict": "confirmed"}, FINE, ("r2",)),
        ("canary", {"batch": 0}, seen("confirmed"), ("r1",)),
        ("canary", {"batch": 0, "order": "stage"}, seen("pending"), ()),
    ],
)
def test_the_robots_of_one_batch_get_ready_after_those_of_the_other(phase, first, look, staged):
    pairs = ((robot("r1", **first), look), (robot("r2", batch=2), seen("confirmed")))
    found = orders(*pairs, phase=phase)
    assert (found or ("stage", ""))[1:-1] == staged


def ready(name="r1", **more):
    return robot(name, "stage", **more), seen("staged")


@pytest.mark.parametrize(
    ("first", "look", "gate"),
    [
        ({}, seen("staged"), None),
        ({}, seen("confirmed", running=NEW), None),
        ({}, seen("confirmed", running=OLD), ""),
        ({}, seen("staged", generation=4), ""),
        ({}, seen("switching", running=NEW), ""),
        ({}, seen("pending", waiting="files"), "files"),
        ({}, seen("pending", waiting="files", reachable=False), "unreachable"),
        ({}, seen("staged", reachable=False), "unreachable"),
        ({}, seen("staged", waiting="busy"), "busy"),
        ({}, seen("staged", leases=[Lease("1", "holds a cup", "pick/arm", 0.0)]), "busy"),
        ({"reason": TOO_BUSY, "at": START}, seen("staged"), "busy"),
    ],
)
def test_a_robot_that_is_ready_switches_and_another_one_says_what_it_waits_for(first, look, gate):
    found = decided((robot("r1", "stage", **first), look), OPEN)
    if gate is None:
        assert found.step == Orders("switch", ("r1",))
    else:
        assert found.step is None
        assert found.waiting.get("r1", "") == gate
    assert found.waiting["r9"] == "unreachable"


def waits(**more):
    """A robot that may switch, and has not begun."""
    return robot("r1", "switch"), seen("staged", waiting="busy", **more)


@pytest.mark.parametrize(
    ("pair", "held"),
    [
        (waits(), True),
        ((robot("r1", "switch"), seen("pending")), True),
        ((robot("r1", "switch"), seen("switching")), False),
        ((robot("r1", "stage"), seen("staged")), False),
        (waits(owned=False), False),
        # The order has not reached it, as far as its last report says.
        ((robot("r1", "switch"), seen("staged", generation=4, reachable=False)), True),
        ((robot("r1", "switch"), seen("staged", generation=4)), False),
        ((robot("r1", "switch"), seen("staged", reachable=False)), False),
        ((robot("r1", "switch"), Seen()), False),
        ((robot("r1", "back"), seen("staged", generation=4, reachable=False)), False),
        ((member("r1"), seen("staged", generation=4, reachable=False)), False),
    ],
)
def test_a_robot_that_has_not_begun_gets_ready_again_when_it_may_not_switch_now(pair, held):
    expected = ("stage", "r1")
    found = orders(pair, OPEN, paused=True)
    assert found == ((*expected, PAUSED) if held else None)
    # START is a Friday, 08:00.
    closed = {"windows": ["Sat 08:00-09:00"]}
    found = orders(pair, OPEN, strategy=closed)
    assert found == ((*expected, CLOSED) if held else None)
    assert orders(pair, OPEN, paused=True, phase="reverting") is None
    assert orders(pair, OPEN, strategy={"windows": ["Fri 08:00-09:00"]}) != (*expected, CLOSED)


@pytest.mark.parametrize(("leased_for", "late"), [(100.0, True), (99.9, False)])
def test_a_robot_that_is_busy_for_too_long_gets_ready_again(leased_for, late):
    found = orders(waits(leased_for=leased_for), OPEN, strategy={"busy_max": 100.0})
    assert found == (("stage", "r1", TOO_BUSY) if late else None)
    moving = (robot("r1", "switch"), seen("switching", waiting="busy", leased_for=leased_for))
    assert orders(moving, OPEN, strategy={"busy_max": 100.0}) is None


@pytest.mark.parametrize(
    ("leased_for", "reason", "yields"),
    [(YIELD_S, "", True), (YIELD_S - 0.1, "", False), (YIELD_S, YIELDS, False)],
)
def test_a_busy_robot_gives_its_place_to_one_that_has_not_given_it_before(
    leased_for, reason, yields
):
    pairs = (waits(leased_for=leased_for), ready("r2", reason=reason))
    found = decided(*pairs, strategy={"max_parallel": 1})
    if yields:
        assert found.step == Orders("stage", ("r1",), YIELDS)
    else:
        assert (found.step, found.waiting) == (None, {"r2": "parallel"})
    # There is room for both.
    assert orders(*pairs, strategy={"max_parallel": 2}) == ("switch", "r2", "")


def test_of_those_that_are_ready_the_ones_that_have_waited_less_come_last():
    pairs = (ready("r1", reason=YIELDS), ready("r2"))
    assert orders(*pairs, strategy={"max_parallel": 1}) == ("switch", "r2", "")


# -- nodes that have failed


@pytest.mark.parametrize(
    ("more", "look", "goes"),
    [
        ({}, FINE, True),
        ({"withdrawn": True}, FINE, False),
        ({}, seen("confirmed", owned=False), False),
        ({}, seen("confirmed", reachable=False), False),
        ({}, seen("reverting"), False),
        ({}, seen("confirmed", generation=4), False),
        ({}, Seen(reachable=True), False),
    ],
)
def test_a_robot_whose_nodes_have_failed_is_ordered_to_go_back(more, look, goes):
    failed = robot("r1", "switch", "failed", **more)
    for phase in ("rolling", "settled", "aborted"):
        found = orders((failed, look), OPEN, phase=phase)
        left = ("recall", "r9", "") if phase == "aborted" else None
        assert found == (("withdraw", "r1", "") if goes else left)
    assert orders((replace(failed, order="back"), look), OPEN) is None
    assert (orders((failed, look), OPEN, phase="reverting") or ("",))[0] != "withdraw"


# -- back


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ((robot("r1", "stage"), seen("staged")), ("recall", "r1", "")),
        ((robot("r1", "switch", "reverted"), seen("reverted")), ("recall", "r1", "")),
        ((robot("r1", "switch", "refused"), seen("pending")), ("recall", "r1", "")),
        ((robot("r1", "recall", "refused"), seen("pending")), None),
        ((robot("r1", "stage"), seen("switching")), None),
        ((robot("r1", "stage"), seen("staged", owned=False)), None),
        # In the middle of its switch.
        ((robot("r1", "switch"), seen("switching")), ("back", "r1", "")),
        ((robot("r1", "switch"), seen("probation")), ("back", "r1", "")),
        ((robot("r1", "switch"), seen("reverting")), None),
        ((robot("r1", "switch"), seen("probation", reachable=False)), None),
        ((robot("r1", "switch"), seen("probation", generation=4)), None),
        ((robot("r1", "switch"), seen("probation", waiting="busy")), None),
        ((robot("r1", "switch", before="c" * 64), seen("probation")), None),
        ((robot("r1", "back"), seen("probation")), None),
        # It has it, or may have it.
        *(((robot("r1", "switch", verdict), FINE), ("back", "r1", ""))
          for verdict in ("confirmed", "stuck", "failed")),
        ((robot("r1", "switch", "lost"), seen("staged")), ("back", "r1", "")),
        ((robot("r1", "switch", "confirmed", before="c" * 64), FINE), None),
        ((robot("r1", "switch", "confirmed"), seen("confirmed", reachable=False)), None),
        (waits(), None),
        ((robot("r1", "switch"), seen("staged")), ("back", "r1", "")),
        # No node is left on it.
        ((leaving("r2"), seen("confirmed")), ("back", "r2", "")),
        ((leaving("r2"), seen("confirmed", reachable=False)), None),
        ((leaving("r2", lost=True), seen("confirmed", reachable=False)), ("back", "r2", "")),
        ((leaving("r2", committed=True), seen("confirmed")), None),
        ((leaving("r2", before="c" * 64), seen("confirmed")), None),
        ((leaving("r2", "back"), seen("confirmed")), None),
    ],
)  # fmt: skip
def test_each_robot_goes_back_from_where_it_is(pair, found):
    other = (robot("r9", "back"), seen("reverting"))
    more = {"phase": "reverting", "rejected": frozenset({"c" * 64})}
    assert orders(pair, other, strategy={"max_parallel": 9}, **more) == found


def test_a_lease_does_not_keep_a_robot_from_going_back_if_it_is_ignored():
    pair = (robot("r1", "switch"), seen("probation", waiting="busy"))
    found = orders(pair, phase="reverting", strategy={"busy": "ignore"})
    assert found == ("back", "r1", "")


@pytest.mark.parametrize(
    ("given", "look", "back"),
    [
        (robot("r1", "switch", "confirmed"), FINE, True),
        (robot("r1", "switch"), seen("probation"), True),
        (robot("r1", "switch"), seen("staged"), False),
        (robot("r1", "switch", "reverted"), seen("reverted"), False),
        (robot("r1", "stage"), seen("staged"), False),
        (robot("r1", "switch", "confirmed"), seen("confirmed", owned=False), False),
        (robot("r1", "switch", "confirmed", before="c" * 64), FINE, False),
    ],
)
def test_an_undo_names_the_robots_that_have_the_release(given, look, back):
    one = view((given, look), rejected=frozenset({"c" * 64}))
    assert goes_back(one, given) == back


# -- the end


@pytest.mark.parametrize(
    ("phase", "pair", "found"),
    [
        ("aborted", ready(), ("recall", "r1", "")),
        ("aborted", waits(), ("recall", "r1", "")),
        ("aborted", waits(owned=False), None),
        ("aborted", (robot("r1", "switch"), seen("switching")), None),
        ("aborted", (robot("r1", "stage"), seen("probation")), None),
        ("aborted", (robot("r1", "switch", "confirmed"), FINE), None),
        ("aborted", (robot("r1", "stage", "refused"), seen("pending")), ("recall", "r1", "")),
        ("aborted", (robot("r1", "switch", "refused"), seen("pending")), None),
        ("refused", (robot("r1", "switch", "refused"), seen("pending")), ("recall", "r1", "")),
        ("refused", (robot("r1", "switch", "stuck"), seen("pending")), None),
    ],
)
def test_the_end_of_a_rollout_takes_back_what_has_not_begun(phase, pair, found):
    assert orders(pair, phase=phase) == found


@pytest.mark.parametrize(
    ("given", "look", "over"),
    [
        (robot("r1", "switch", "confirmed"), FINE, True),
        # It may have gone back, and tells it when it is back.
        (robot("r1", "switch", "confirmed"), Seen(away_for=99.9), False),
        (robot("r1", "switch", "confirmed"), Seen(away_for=100.0), True),
        (robot("r1", "back", "confirmed"), Seen(), True),
        (robot("r1", "switch", "lost"), Seen(), False),
        (robot("r1", "switch", "lost"), Seen(owned=False), True),
        (robot("r1", "switch", "failed"), Seen(), False),
        (robot("r1", "recall", "lost"), Seen(), True),
        (robot("r1", "switch", "reverted"), Seen(), True),
        (robot("r1", "switch"), seen("switching"), False),
        (robot("r1", "back"), seen("reverting"), False),
        (robot("r1", "stage"), seen("staged"), False),
    ],
)
def test_a_rollout_is_over_once_nothing_more_can_be_heard_of_its_robots(given, look, over):
    soak = replace(STRATEGY, soak_time=9.0, catch_up=100.0)
    assert is_over(view((given, look), phase="aborted", strategy=soak)) == over
    assert not is_over(view((given, look), strategy=soak))
    if given.verdict == "confirmed":
        assert is_over(view((given, look), phase="aborted"))
