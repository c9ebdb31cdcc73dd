"""What `dorafleet drift` names, as functions of what the coordinator knows of a robot."""

import pytest

from dorad.control.messages.releases import ReleaseState
from dorafleet.coordinator.drift import Compared, drift_of
from dorafleet.coordinator.records import RobotAssignment

ORDER = {"pick": RobotAssignment(3, release="a" * 64, switch=True, rollout=7)}


def state(phase, **more):
    given = {"dataflow": "pick", "epoch": 1, "generation": 3, "since": 0.0, "release": "a" * 64}
    return {"pick": ReleaseState(phase=phase, **{**given, **more})}


def rows(**more):
    return list(drift_of(Compared(robot="arm1", **more), lambda id_: f"pick@{id_[:1]}"))


def test_a_robot_that_cannot_be_reached_is_not_said_to_be_well():
    (row,) = rows(reachable=False, trouble="it is unreachable: silent")
    assert (row.what, row.found, row.way_back) == (
        "contact",
        "it is unreachable: silent",
        "dorafleet doctor",
    )
    assert rows() == []


def test_what_an_unreachable_robot_had_last_counts():
    done = state("confirmed", running="a" * 64)
    (row,) = rows(reachable=False, trouble="silent", orders=ORDER, releases=done)
    assert row.what == "contact"
    _, row = rows(reachable=False, trouble="silent", orders=ORDER)
    assert (row.what, row.known) == ("release", False)


@pytest.mark.parametrize(
    ("releases", "is_open", "back"),
    [
        ({}, False, "dorafleet provision FILE arm1"),
        (state("pending", waiting="files"), False, "dorafleet provision FILE arm1"),
        (state("pending", refused=True), False, "dorafleet provision FILE arm1"),
        (state("pending", waiting="files"), True, "dorafleet rollout follow 7"),
        (
            state("pending", waiting="files", previous="b" * 64, confirmed="b" * 64),
            False,
            "dorafleet release push pick@a FILE --only arm1",
        ),
        ({}, True, "dorafleet rollout start pick@a --robots arm1"),
    ],
)
def test_the_way_back_is_a_command_that_sends_something(releases, is_open, back):
    (row,) = rows(orders=ORDER, releases=releases, open_rollouts={7} if is_open else ())
    assert row.way_back == back
