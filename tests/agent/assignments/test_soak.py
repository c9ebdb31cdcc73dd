"""After a confirmation: a robot whose nodes fail in its soak time goes back by itself."""

import msgspec
import pytest

from dorad.agent.assignments.decide import decide, state_of
from dorad.agent.assignments.model import Down, ReleaseRecord, Revision
from dorad.control.messages.releases import Lease, Rejection
from tests.agent.assignments.orders import A, B, health, order, record, seen, share
from tests.agent.assignments.test_decide import on_probation, taken

SOAK_S = 600.0
CONFIRMED_AT = 140
DEAD = Down(failed={"camera": "has failed: it exited with code 1"})
WHY = "failed after its confirmation: node camera has failed: it exited with code 1"
LEASE = Lease(id="1", reason="holds a box", owner="pick/gripper (pid 8)", since=0)


def soaking(**more):
    """Return the record of a robot that has confirmed A, then B at second 140."""
    present = on_probation(soak_time=SOAK_S, **more)
    present = decide(
        present, seen(CONFIRMED_AT, share=share(2), health=health(), contact=CONFIRMED_AT)
    )
    assert (present.phase, present.soaks_since) == ("confirmed", CONFIRMED_AT)
    return present


def failing(present, now=200, **more):
    return decide(present, seen(now, share=share(present.step), down=DEAD, **more))


def stored(present):
    return msgspec.json.decode(msgspec.json.encode(present), type=ReleaseRecord)


def ends(present, now=210, **more):
    """Return the record once the daemon has done what it orders."""
    return decide(present, seen(now, share=share(present.step), **more))


def test_a_robot_whose_node_fails_in_the_soak_goes_back_and_says_why():
    present = failing(soaking())
    assert (present.phase, present.applied.revision.release) == ("reverting", A)
    assert present.reason == WHY
    present = ends(present)
    state = state_of(present, None, {})
    assert (state.phase, state.running, state.confirmed, state.reason) == ("reverted", A, A, WHY)
    assert present.is_rejected(Revision(B))
    assert not present.baseline.rates  # those of B say nothing about A


def test_a_dataflow_that_fails_as_a_whole_in_the_soak_goes_back():
    present = soaking()
    present = decide(present, seen(200, share=share(present.step, "failed", "crashed")))
    assert (present.phase, present.applied.revision.release) == ("reverting", A)


@pytest.mark.parametrize("down", [Down(), Down(ended={"log": "was stopped by a command"})])
def test_what_is_no_failure_ends_no_release(down):
    present = soaking()
    present = decide(present, seen(200, share=share(present.step), down=down))
    assert present.phase == "confirmed"
    stopped = decide(present, seen(205, share=share(present.step, "stopped")))
    assert stopped.phase == "confirmed"


def test_after_the_soak_a_failure_changes_nothing():
    present = soaking()
    late = CONFIRMED_AT + SOAK_S
    at_end = decide(present, seen(late, share=share(present.step), down=Down()))
    assert at_end.soaks_since is None
    assert failing(at_end, late + 5).phase == "confirmed"
    before = decide(present, seen(late - 1, share=share(present.step), down=Down()))
    assert failing(before, late - 0.5).phase == "reverting"


def test_a_failure_that_is_seen_late_counts():
    """The agent was away: nothing says that the node failed after the soak."""
    assert failing(soaking(), CONFIRMED_AT + SOAK_S + 50).phase == "reverting"


def test_without_a_soak_time_a_failure_changes_nothing():
    present = on_probation()
    present = decide(present, seen(140, share=share(2), health=health(), contact=140))
    assert failing(present).phase == "confirmed"


def test_a_restart_of_the_machine_begins_the_soak_again():
    present = stored(soaking())
    present = decide(present, seen(5, boot="boot-2", share=share(present.step), down=Down()))
    assert (present.phase, present.soaks_since) == ("confirmed", 5)
    present = decide(present, seen(300, boot="boot-2", share=share(present.step), down=DEAD))
    assert present.phase == "reverting"


def test_a_power_cut_in_the_middle_of_the_return_does_not_end_it():
    present = stored(failing(soaking()))
    present = decide(present, seen(3, boot="boot-2", share=share(present.step, "pending")))
    assert present.phase == "reverting"
    present = decide(present, seen(9, boot="boot-2", share=share(present.step)))
    assert (present.phase, present.applied.revision.release) == ("reverted", A)


def test_it_waits_for_a_lease_and_goes_back_even_after_the_soak():
    present = failing(soaking(), leases=[LEASE])
    assert present.phase == "confirmed"
    assert "goes back when it is no longer busy: pick/gripper (pid 8)" in present.reason
    assert failing(present, 205, leases=[LEASE]) == present
    present = failing(present, CONFIRMED_AT + SOAK_S + 100, leases=[LEASE])
    assert failing(present, CONFIRMED_AT + SOAK_S + 105).phase == "reverting"
    assert failing(soaking(busy="ignore"), leases=[LEASE]).phase == "reverting"


def test_it_does_not_go_back_to_what_was_undone_while_it_was_off():
    """The order named the release: with whatever parameters the robot had confirmed it."""
    gone = Rejection(release=A, params={"other/rate": 1}, reason="undone", whole=True)
    present = failing(soaking(rejects=[gone]))
    assert (present.phase, present.applied.revision.release) == ("stuck", B)
    assert "every release that was confirmed here has failed or was undone" in present.reason
    again = taken(present, order(A, 9, allow_lower=True))
    assert not again.is_rejected(Revision(A))


def test_a_first_release_that_fails_in_the_soak_is_stopped():
    present = decide(record(order(soak_time=SOAK_S)), seen(10))
    present = decide(present, seen(11, share=share(present.step)))
    present = decide(present, seen(50, share=share(present.step), health=health(), contact=50))
    assert (present.phase, present.first) == ("confirmed", True)
    present = failing(present)
    assert (present.phase, present.applied, present.halting) == ("reverting", None, True)
    present = decide(present, seen(210, share=share(present.step, "stopped")))
    assert (present.phase, present.confirmed) == ("reverted", None)


# -- an order to go back, of a coordinator that watches longer


def withdrawn(present, generation=3, **more):
    return taken(present, order(B, generation, soak_time=SOAK_S, withdraw=True, **more))


def test_a_withdrawn_release_goes_back_after_its_soak():
    present = soaking()
    late = CONFIRMED_AT + SOAK_S
    present = decide(present, seen(late, share=share(present.step), down=Down()))
    present = withdrawn(present)
    assert present.phase == "confirmed"
    assert failing(present, late + 9, leases=[LEASE]).phase == "confirmed"
    present = failing(present, late + 10)
    assert (present.phase, present.applied.revision.release) == ("reverting", A)
    assert present.is_rejected(Revision(B))


def test_nodes_that_run_again_do_not_keep_a_withdrawn_release():
    present = withdrawn(soaking())
    present = decide(present, seen(200, share=share(present.step), down=Down()))
    assert present.phase == "reverting"
    assert "nodes of it have failed, and run again" in present.reason


@pytest.mark.parametrize("done", [False, True])
def test_a_withdrawal_that_meets_a_robot_on_its_way_back_changes_nothing(done):
    present = failing(soaking())
    if done:
        present = ends(present)
    present = ends(withdrawn(present))
    for now in (220, 230):
        present = ends(present, now)
    assert (present.phase, present.applied.revision.release) == ("reverted", A)
    assert state_of(present, None, {}).generation == 3
    assert present.next is None


def test_a_robot_that_has_not_the_release_does_not_switch_to_it_to_go_back():
    first = order(B, 3, withdraw=True)
    present = decide(record(first), seen(10, release=B))
    assert (present.phase, present.refused, present.step) == ("pending", True, 0)
    assert "nodes of it have failed on this robot" in present.reason
