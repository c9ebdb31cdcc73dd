"""The start barrier as a function of data."""

from dorad.daemon.rules.barrier import HOLD, Barrier, Phase


def test_the_barrier_opens_when_all_nodes_have_connected() -> None:
    barrier = Barrier.of(["a", "b"]).connected("a")
    assert barrier.phase is Phase.WAITING
    assert barrier.connected("b").phase is Phase.OPEN


def test_it_is_open_for_an_empty_cohort() -> None:
    assert Barrier.of([]).phase is Phase.OPEN


def test_a_node_outside_the_cohort_does_not_count() -> None:
    assert Barrier.of(["a"]).connected("dynamic").pending == {"a"}


def test_an_early_end_aborts_the_start_of_waiting_nodes() -> None:
    barrier = Barrier.of(["a", "b"]).connected("a").ended("b")
    assert (barrier.phase, barrier.root_cause) == (Phase.ABORTED, "b")


def test_an_early_end_aborts_the_start_of_nodes_that_have_not_connected() -> None:
    assert Barrier.of(["a", "b"]).ended("b").phase is Phase.ABORTED


def test_an_early_end_of_a_lone_node_aborts_nothing() -> None:
    assert Barrier.of(["a"]).ended("a").phase is Phase.OPEN


def test_the_end_of_a_connected_node_does_not_keep_the_others_waiting() -> None:
    barrier = Barrier.of(["a", "b"]).connected("a").ended("a")
    assert barrier.phase is Phase.WAITING
    assert barrier.connected("b").phase is Phase.OPEN


def test_the_end_of_the_last_missing_node_aborts_only_if_others_wait() -> None:
    assert Barrier.of(["a", "b"]).connected("a").ended("a").ended("b").phase is Phase.OPEN


def test_an_aborted_start_stays_aborted_with_its_first_root_cause() -> None:
    barrier = Barrier.of(["a", "b", "c"]).ended("a").ended("b").connected("c").forced_open()
    assert (barrier.phase, barrier.root_cause) == (Phase.ABORTED, "a")


def test_a_stop_opens_it() -> None:
    assert Barrier.of(["a"]).forced_open().phase is Phase.OPEN


def test_an_open_barrier_is_not_aborted() -> None:
    assert Barrier.of(["a", "b"]).forced_open().ended("a").phase is Phase.OPEN


def test_a_held_barrier_opens_when_it_is_released_and_complete_in_either_order() -> None:
    held = Barrier.of(["a"], held=True)
    complete = held.connected("a")
    assert (complete.phase, complete.complete) == (Phase.WAITING, True)
    assert complete.released().phase is Phase.OPEN
    released = held.released()
    assert (released.phase, released.complete) == (Phase.WAITING, False)
    assert released.connected("a").phase is Phase.OPEN


def test_a_held_barrier_without_nodes_waits_for_those_of_other_machines() -> None:
    barrier = Barrier.of([], held=True)
    assert barrier.complete
    assert barrier.released().phase is Phase.OPEN


def test_an_early_end_of_a_lone_node_aborts_the_start_on_other_machines() -> None:
    assert Barrier.of(["a"], held=True).ended("a").phase is Phase.ABORTED


def test_a_hold_that_runs_out_aborts_the_start() -> None:
    barrier = Barrier.of(["a"], held=True).connected("a").expired()
    assert (barrier.phase, barrier.root_cause) == (Phase.ABORTED, HOLD)
    assert barrier.released() == barrier.released().expired()


def test_an_open_barrier_does_not_run_out() -> None:
    opened = Barrier.of([])
    assert opened.expired() is opened


def test_a_held_barrier_survives_a_daemon() -> None:
    barrier = Barrier.of(["a", "b"], held=True).connected("b")
    assert Barrier.from_json(barrier.to_json()) == barrier


def test_only_a_node_that_the_start_waits_for_changes_it() -> None:
    barrier = Barrier.of({"a", "b"})
    assert barrier.connected("dynamic") == barrier
    assert barrier.connected("a").connected("a") == barrier.connected("a")
    stopped = barrier.forced_open()
    assert stopped.connected("a") == stopped
