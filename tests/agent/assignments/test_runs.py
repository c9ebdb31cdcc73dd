"""What the agent does next, in each case."""

import pytest
from msgspec.structs import replace

from dorad.agent.assignments.model import Assignment
from dorad.agent.assignments.orders import (
    forget_epoch,
    open_barrier,
    take_release,
    take_run,
    take_share,
)
from dorad.agent.assignments.runs import (
    BARRIER_S,
    HOLD_S,
    Change,
    Conclude,
    Open,
    Present,
    RunRecord,
    Start,
    Stop,
    begin,
    conclude,
    decide,
    follow,
    has_run,
    mark_run,
    mark_seen,
    state_of,
)
from dorad.control.errors import ControlError
from dorad.control.messages import LinkPeer
from dorad.control.messages.agent import ShareRef
from tests.agent.assignments import orders as releases
from tests.agent.orders import UUID, order, run

NOW, NEXT_BOOT = Present("boot-1", "one"), Present("boot-2", "one")
BOOT = NOW.boot
OTHER = "00000000-0000-4000-8000-000000000002"


def taken(*orders):
    record = None
    for each in orders:
        record = take_run(record, each, BOOT)
    return record


def running(*orders, started=None):
    """Return the record of a share that dorad was told to start."""
    return begin(taken(*orders), NOW, started)


def test_a_run_that_was_seen_has_run_although_nothing_was_stored_at_its_start():
    """A kill may come between dorad's answer and the record."""
    started = running(order())
    assert not started.begun.ran
    assert mark_seen(started, {UUID: run()}).begun.ran
    for unseen in ({}, {UUID: run("finished")}, {OTHER: run()}):
        assert mark_seen(started, unseen) is started
    never = taken(order())
    assert mark_seen(never, {UUID: run()}) is never
    ran = mark_run(started, UUID)
    assert mark_seen(ran, {}) is ran
    assert mark_run(started, OTHER) is started


def test_a_new_share_is_started_and_held():
    assert decide(taken(order(hold=20)), {}, NOW) == Start(20, None)


def test_a_share_that_runs_is_left_alone():
    assert decide(running(order()), {UUID: run()}, NOW) is None


def test_the_barrier_is_opened_once_the_share_is_ready():
    held = running(order(hold=20))
    ready = {UUID: run("starting", ready=True)}
    assert decide(held, ready, NOW) is None
    opened = open_barrier(held, ShareRef(epoch=1, generation=1, dataflow="flow"))
    assert decide(opened, ready, NOW) == Open()
    assert decide(opened, {UUID: run("starting")}, NOW) is None


def test_a_barrier_that_was_opened_is_not_held_again_by_a_late_order():
    opened = open_barrier(running(order(hold=20)), ShareRef(epoch=1, generation=1, dataflow="flow"))
    again = take_run(opened, order(hold=20), BOOT)
    assert decide(again, {UUID: run("starting", ready=True)}, NOW) == Open()
    assert decide(again, {}, NOW) == Start(None, None)


def own(*orders, started=1.0):
    """Return the record of a share whose barrier this robot opens itself."""
    record = take_run(None, order(hold=HOLD_S), BOOT, opens=True)
    for each in orders:
        record = take_run(record, each, BOOT, opens=True)
    return begin(record, NOW, started)


@pytest.mark.parametrize("now", [NOW, NEXT_BOOT])
def test_a_barrier_of_its_own_is_held_at_each_start_and_opened_once_the_share_is_ready(now):
    record = own(started=None)
    assert decide(record, {}, now) == Start(HOLD_S, None)
    assert decide(record, {UUID: run("starting")}, now) is None
    assert decide(record, {UUID: run("starting", ready=True)}, now) == Open()
    assert decide(record, {UUID: run()}, now) is None
    # It stays for the starts that follow, also after a change.
    later = own(order(2, hold=HOLD_S), started=1.0)
    assert decide(later, {UUID: run("finished", started_at=1.0)}, now) == Start(HOLD_S, 1.0)


def test_a_barrier_of_its_own_opens_after_a_while_without_the_links():
    held = run("starting", links={"r2": LinkPeer(state="absent")})
    for waited, action in ((0.0, None), (BARRIER_S - 0.1, None), (BARRIER_S, Open())):
        assert decide(own(), {UUID: replace(held, waited=waited)}, NOW) == action
    assert BARRIER_S < HOLD_S


def test_a_barrier_that_a_coordinator_opens_waits_for_it():
    late = replace(run("starting"), waited=BARRIER_S)
    assert decide(running(order(hold=20)), {UUID: late}, NOW) is None
    assert decide(running(order()), {UUID: late}, NOW) is None


def test_a_coordinator_may_say_by_the_order_that_the_barrier_is_open():
    again = take_run(running(order(hold=20)), order(), BOOT)
    assert decide(again, {UUID: run("starting", ready=True)}, NOW) == Open()


def test_after_a_reboot_the_share_is_started_without_waiting_for_anybody():
    record = running(order(hold=20))
    assert decide(record, {}, NEXT_BOOT) == Start(None, None)
    lost = run("failed", interrupted=True)
    assert decide(record, {UUID: lost}, NEXT_BOOT) == Start(None, 1.0)


def test_a_share_that_had_finished_is_not_started_after_a_reboot():
    finished = conclude(running(order()), "finished", 5.0, "", run("finished"))
    assert decide(finished, {}, NEXT_BOOT) is None


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_a_share_that_ended_while_the_machine_went_down_is_started_again(status):
    stopped = run(status, interrupted=True)
    assert decide(running(order()), {UUID: stopped}, NEXT_BOOT) == Start(None, 1.0)


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_a_share_that_ended_by_itself_just_before_is_not_started_again(status):
    assert decide(running(order()), {UUID: run(status)}, NEXT_BOOT) == Conclude(status)


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_the_end_of_the_run_ends_the_order(status):
    assert decide(running(order()), {UUID: run(status)}, NOW) == Conclude(status)


def test_a_run_that_had_ended_before_is_not_taken_for_the_one_just_started():
    record = running(order(2), started=1.0)
    assert decide(record, {UUID: run("failed", started_at=1.0)}, NOW) == Start(None, 1.0)
    assert decide(record, {UUID: run("failed", started_at=2.0)}, NOW) == Conclude("failed")


def test_a_share_that_dorad_has_lost_is_started_again():
    assert decide(running(order()), {}, NOW) == Start(None, None)


def test_a_changed_order_changes_the_run():
    changed = take_run(running(order(1)), order(2, descriptor={"nodes": []}), BOOT)
    assert decide(changed, {UUID: run()}, NOW) == Change()
    assert decide(follow(changed, changed.order, NOW), {UUID: run()}, NOW) is None


def test_a_change_that_dorad_refuses_is_not_tried_again():
    changed = take_run(running(order(1)), order(2, descriptor={"nodes": []}), BOOT)
    refused = follow(changed, changed.order, NOW, "no such program")
    assert decide(refused, {UUID: run()}, NOW) is None
    state = state_of(refused, {UUID: run()}, "", None, 9.0)
    assert (state.status, state.generation, state.reason) == ("running", 2, "no such program")


def test_an_order_that_arrives_during_a_change_is_not_lost():
    second = take_run(running(order(1)), order(2, descriptor={"nodes": []}), BOOT)
    third = take_run(second, order(3, descriptor={"nodes": [1]}), BOOT)
    assert decide(follow(third, second.order, NOW), {UUID: run()}, NOW) == Change()


def test_another_run_of_the_dataflow_waits_until_the_first_has_ended():
    record = take_run(running(order(1)), order(2, uuid=OTHER), BOOT)
    assert decide(record, {UUID: run()}, NOW) == Stop(UUID)
    assert decide(record, {UUID: run("stopping")}, NOW) is None
    assert decide(record, {UUID: run("finished")}, NOW) == Start(None, None)


def test_a_disabled_share_is_stopped_and_then_done():
    record = take_run(running(order(1)), order(2, enabled=False), BOOT)
    assert decide(record, {UUID: run()}, NOW) == Stop(UUID)
    assert decide(record, {UUID: run("stopping")}, NOW) is None
    assert decide(record, {UUID: run("failed")}, NOW) == Conclude("stopped")
    assert decide(record, {}, NOW) == Conclude("stopped")


def test_a_stop_that_waits_can_be_followed_by_one_that_does_not():
    record = take_run(running(order(1)), order(2, enabled=False, force=True), BOOT)
    assert decide(record, {UUID: run("stopping")}, NOW) == Stop(UUID)


def test_a_share_of_which_the_agent_has_forgotten_the_run_is_stopped_by_its_uuid():
    assert decide(taken(order(enabled=False)), {UUID: run()}, NOW) == Stop(UUID)


def test_a_run_that_the_agent_has_forgotten_is_adopted():
    record = taken(order())
    assert decide(record, {UUID: run()}, NOW) == Change()
    assert decide(follow(record, record.order, NOW), {UUID: run()}, NOW) is None


@pytest.mark.parametrize(("epoch", "generation"), [(1, 9), (2, 4)])
def test_an_older_order_is_refused(epoch, generation):
    with pytest.raises(ControlError, match="is older") as caught:
        take_run(taken(order(5, epoch=2)), order(generation, epoch=epoch), BOOT)
    assert caught.value.code == "conflict"
    with pytest.raises(ControlError, match="is older"):
        open_barrier(
            taken(order(5, epoch=2)),
            ShareRef(epoch=epoch, generation=generation, dataflow="flow"),
        )


@pytest.mark.parametrize("changed", [{"enabled": False}, {"uuid": OTHER}])
def test_another_order_under_the_same_number_is_refused(changed):
    with pytest.raises(ControlError, match="has generation 1 already"):
        take_run(taken(order(1)), order(1, **changed), BOOT)
    assert take_run(taken(order(1)), order(1, epoch=2, **changed), BOOT).version == (2, 1)


def test_a_barrier_of_another_generation_is_not_opened():
    with pytest.raises(ControlError, match="generation 1, not 2"):
        open_barrier(taken(order(1)), ShareRef(epoch=1, generation=2, dataflow="flow"))


def test_the_same_order_of_a_new_coordinator_changes_nothing():
    finished = conclude(running(order(1)), "finished", 5.0, "", run("finished"))
    again = take_run(finished, order(1, epoch=7), BOOT)
    assert decide(again, {UUID: run("finished")}, NOW) is None
    assert again.version == (7, 1)
    assert decide(take_run(running(order(1)), order(1, epoch=7), BOOT), {UUID: run()}, NOW) is None


def test_other_addresses_reach_a_running_share_but_start_no_ended_one():
    moved = order(1, connect=["tls/192.0.2.9:5456"])
    assert decide(take_run(running(order(1)), moved, BOOT), {UUID: run()}, NOW) == Change()
    finished = conclude(running(order(1)), "finished", 5.0, "", run("finished"))
    assert decide(take_run(finished, moved, BOOT), {UUID: run("finished")}, NOW) is None


def test_a_new_certificate_reaches_the_links_of_a_running_share():
    renewed = NOW._replace(identity="two")
    assert decide(running(order()), {UUID: run()}, renewed) is None
    linked = running(order(connect=["tls/192.0.2.9:5456"]))
    assert decide(linked, {UUID: run()}, renewed) == Change()
    assert decide(follow(linked, linked.order, renewed), {UUID: run()}, renewed) is None


def test_a_share_that_ended_is_started_again_by_a_new_generation():
    finished = conclude(running(order(1)), "finished", 5.0, "", run("finished"))
    again = take_run(finished, order(2), BOOT)
    assert decide(again, {UUID: run("finished", started_at=3.0)}, NOW) == Start(None, 3.0)


def test_the_state_says_what_it_waits_for():
    record = taken(order())
    pending = state_of(record, {}, "no dorad is running", None, 9.0)
    assert (pending.status, pending.reason) == ("pending", "no dorad is running")
    link = {"base": LinkPeer(state="up")}
    ready = state_of(
        running(order(hold=20)), {UUID: run("starting", ready=True, links=link)}, "", pending, 10.0
    )
    assert (ready.status, ready.since, ready.links) == ("ready", 10.0, link)
    same = state_of(running(order(hold=20)), {UUID: run("starting", ready=True)}, "", ready, 12.0)
    assert same.since == 10.0


def test_a_share_whose_barrier_may_open_is_no_longer_reported_as_ready():
    ref = ShareRef(epoch=1, generation=1, dataflow="flow")
    opened = open_barrier(running(order(hold=20)), ref)
    state = state_of(opened, {UUID: run("starting", ready=True)}, "", None, 9.0)
    assert state.status == "starting"


def test_the_state_of_a_share_that_is_yet_to_change_has_the_old_generation():
    changed = take_run(running(order(1)), order(2, descriptor={"nodes": []}), BOOT)
    assert state_of(changed, {UUID: run()}, "", None, 9.0).generation == 1
    ended = take_run(running(order(1)), order(2, enabled=False), BOOT)
    state = state_of(ended, {UUID: run()}, "", None, 9.0)
    assert (state.generation, state.status) == (2, "stopping")


def test_the_state_of_an_ended_share_has_its_results():
    ended = conclude(running(order()), "failed", 5.0, "node a failed", run("failed"))
    state = state_of(ended, {}, "", None, 9.0)
    assert (state.status, state.since, state.reason) == ("failed", 5.0, "node a failed")
    assert state.outcome is not None
    assert state.outcome.status == "failed"


def test_a_note_and_the_trouble_of_the_last_change_are_in_the_reason():
    record = running(order())
    for trouble, note, reason in (
        ("", "", ""), ("no disk", "", "no disk"), ("", "full soon", "full soon"),
        ("no disk", "full soon", "no disk; full soon"),
    ):  # fmt: skip
        assert state_of(record, {UUID: run()}, trouble, None, 9.0, note).reason == reason
    refused = follow(record, order(2), NOW, "it cannot be changed")
    assert state_of(refused, {UUID: run()}, "", None, 9.0).reason == "it cannot be changed"
    # The present trouble comes first, and nothing is said of a run that is no more.
    assert state_of(refused, {UUID: run()}, "no dorad", None, 9.0).reason == "no dorad"
    for runs in ({}, {UUID: run("finished")}):
        assert state_of(refused, runs, "", None, 9.0).reason == ""


def test_the_state_is_that_of_the_run_before_while_that_is_there():
    changed = take_run(running(order(1)), order(2, uuid=OTHER), BOOT)
    links = {"base": LinkPeer(state="up")}
    state = state_of(changed, {UUID: run(links=links)}, "", None, 9.0)
    assert (state.uuid, state.status, state.generation) == (UUID, "running", 1)
    assert state.links == links
    state = state_of(changed, {OTHER: run(uuid=OTHER)}, "", None, 9.0)
    assert (state.uuid, state.status) == (OTHER, "running")
    both = {UUID: run("finished"), OTHER: run(uuid=OTHER)}
    assert state_of(changed, both, "", None, 9.0).status == "pending"
    assert state_of(changed, {}, "", None, 9.0).uuid == OTHER
    # What dorad runs without this agent has no order before.
    assert state_of(taken(order(3)), {UUID: run()}, "", None, 9.0).generation == 3


def test_an_order_for_an_inline_dataflow_makes_a_run_unless_releases_do():
    assert take_share(None, order(), BOOT) == Assignment(RunRecord(order(), BOOT))
    present = Assignment(running(order()))
    assert take_share(present, order(2), BOOT).run == take_run(present.run, order(2), BOOT)
    released = Assignment(None, releases.record())
    with pytest.raises(ControlError, match="comes from releases here") as caught:
        take_share(released, order(), BOOT)
    assert caught.value.code == "conflict"


def test_a_release_takes_the_place_of_an_inline_dataflow_that_has_ended():
    new = releases.record()
    assert take_release(None, new.order, new) == Assignment(None, new)
    present = Assignment(running(order()))
    with pytest.raises(ControlError, match="runs here and does not come from a release"):
        take_release(present, new.order, new)
    ended = Assignment(conclude(present.run, "finished", 5.0, "", None))
    assert take_release(ended, new.order, new) == Assignment(None, new)
    # The run of a release is kept.
    both = Assignment(present.run, new)
    later = releases.order(rollout="r-2")
    assert take_release(both, later, new) == Assignment(present.run, replace(new, order=later))


def test_the_epochs_of_another_fleet_begin_again_for_what_runs():
    record = mark_run(running(order(4, epoch=7)), UUID)
    after = forget_epoch(Assignment(record))
    assert after.release is None
    assert (after.run.version, after.run.begun.version, after.run.started) == ((0, 4), (0, 4), True)
    assert forget_epoch(Assignment(None, releases.record())).run is None
    # One that was not begun stays so.
    changed = take_run(record, order(5, epoch=7, descriptor={"nodes": []}), BOOT)
    after = forget_epoch(Assignment(changed)).run
    assert (after.version, after.begun.version, after.started) == ((0, 5), (7, 4), False)


def test_what_dorad_has_accepted_has_run():
    assert not has_run(taken(order()))
    started = running(order())
    assert has_run(started) is False
    assert has_run(mark_run(started, UUID)) is True
    assert has_run(take_run(mark_run(started, UUID), order(2, uuid=OTHER), BOOT)) is False


def test_a_change_that_a_newer_order_has_overtaken_is_that_of_the_older_one():
    record = take_run(running(order(1)), order(3, descriptor={"nodes": []}), BOOT)
    done = follow(record, order(2), NOW)
    assert (done.order.generation, done.begun.version, done.started) == (3, (1, 2), False)
    done = follow(record, record.order, NOW)
    assert (done.begun.version, done.started) == ((1, 3), True)
