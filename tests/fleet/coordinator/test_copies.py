"""What a coordinator that waits to lead copies, and who may."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorafleet.coordinator.access import _check_path
from dorafleet.coordinator.copies import order_for
from dorafleet.coordinator.uploadmessages import CopyState

RELEASES = ["a", "b", "c", "d"]
some = st.sets(st.sampled_from(RELEASES))


@given(
    keep=st.permutations(RELEASES), here=some, theirs=some, failed=st.sampled_from(["", *RELEASES])
)
def test_visits_end_with_the_same_files_on_both_whatever_fails_once(keep, here, theirs, failed):
    """`failed` does not arrive the first time, on either side."""
    everything = here | theirs
    state = CopyState("two", sorted(theirs))
    not_taken = set()
    once = {failed}
    for _ in range(2 * len(RELEASES) + 2):
        order = order_for(state, keep, here, not_taken)
        assert not (order.send and order.take)
        moved = order.send or order.take
        if not moved:
            if not not_taken:
                break
            not_taken = set()
        elif moved in once:
            once.discard(moved)
            state.failed = moved
            not_taken |= {order.take} - {""}
        elif order.send:
            assert moved in here and moved not in state.complete
            state.complete = [*state.complete, moved]
        else:
            assert moved in state.complete and moved not in here
            here = here | {moved}
    assert {*state.complete} == here == everything


def test_what_robots_may_wait_for_comes_first_and_a_failure_keeps_no_other_release_out():
    state = CopyState("two", ["c"], failed="a")
    assert order_for(state, ["a", "b", "c"], {"a", "b"}).take == "c"
    assert order_for(state, ["a", "b"], {"a", "b"}).send == "b"
    assert order_for(state, ["a"], {"a"}).send == "a"
    assert order_for(state, ["b"], {"a", "b"}).keep == ["b"]


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "robot", "enrolling"])
def test_only_a_coordinator_s_certificate_gets_copies_and_it_gets_nothing_else(role):
    with pytest.raises(ControlError, match=r"`/copies`|may connect at `/agent` only"):
        _check_path(Peer(0, 0, 0, name="x", role=role), "/copies")
    own = Peer(0, 0, 0, name="main", role="coordinator")
    _check_path(own, "/copies")
    for path in ("/", "/agent", "/files", "/upload"):
        with pytest.raises(ControlError, match="coordinator `main` may connect at `/copies` only"):
            _check_path(own, path)
