"""Releases on a robot with a real dorad: switched, judged, and undone."""

import asyncio
import shlex
from textwrap import dedent

import msgspec
import pytest
from msgspec.structs import replace

from dorad.agent.assignments import probes
from dorad.agent.assignments.model import Assignment
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages.releases import HealthRules
from tests.agent.assignments.robot import NEW_SINK, QUICK, SINK, SOURCE, eventually, flow
from tests.harness.flows import BUSY, seen
from tests.harness.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CRASHES_LATER = """
    import os, time
    from dora import Node

    node = Node()
    begun = time.monotonic()
    for event in node:
        if event["type"] == "INPUT" and time.monotonic() > begun + 0.2:
            raise SystemExit("no more")
"""
CRASHES_WHEN_TOLD = """
    import os
    from dora import Node

    for event in Node():
        if os.path.exists(%r):
            raise SystemExit("no more")
"""
SLOW_SOURCE = SOURCE.replace("number = 0", "number = ticks = 0").replace(
    'if event["type"] == "INPUT":', 'if event["type"] == "INPUT" and not (ticks := ticks + 1) % 50:'
)
"""It sends at every fiftieth tick."""


def failing(robot, check):
    """Return the evidence of a check that has failed."""
    evidence = robot.state().evidence
    return next((each for each in evidence if each.check == check and not each.ok), None)


def limits(robot):
    """Return the rates that the robot's own share demands."""
    return robot.store.runs["flow"].order.content.share.min_rates


async def confirmed(robot, folder, generation=1, **more):
    """Let the robot confirm a release that counts; return it."""
    release = robot.library.add("flow", flow(folder), source=SOURCE, sink=SINK)
    robot.order(release, generation, **more)
    await robot.reaches("confirmed", generation)
    return release


async def test_only_the_changed_node_is_replaced_and_no_message_is_lost(robot, folder):
    await confirmed(robot, folder)
    before = await robot.pids()
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    robot.order(second, 2)
    state = await robot.reaches("confirmed", 2)
    after = await robot.pids()
    assert after["source"] == before["source"]
    assert after["sink"] != before["sink"]
    assert (state.restarted, state.running, state.sequence) == (["sink"], second, 2)
    assert state.previous
    numbers = seen(folder)
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("sink", [CRASHES_LATER, "raise SystemExit('broken')"])
async def test_a_release_that_crashes_is_left_and_not_tried_again(robot, folder, sink):
    rules = replace(QUICK, rates={"source/number": 1.0}, quiet=["source/other"])
    first = await confirmed(robot, folder, rules=rules)
    # They stay limits for alerts.
    assert limits(robot) == {"source/number": 1.0, "source/other": 0.0}
    before = await robot.pids()
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=sink, sequence=2)
    robot.order(second, 2, rules=HealthRules(min_healthy_time=5, healthy_deadline=300))
    state = await robot.reaches("reverted", 2)
    assert state.running == state.confirmed == first
    assert limits(robot) == {}
    assert (await robot.pids())["source"] == before["source"]
    robot.order(second, 3)
    state = await robot.reaches("pending", 3, refused=True)
    assert "failed on this robot before" in state.reason
    count = len(seen(folder))
    await until(lambda: len(seen(folder)) > count + 10)


async def test_a_first_release_that_cannot_start_says_which_node_ended_and_why(robot, folder):
    broken = 'raise ModuleNotFoundError("no gripper")'
    first = robot.library.add("flow", flow(folder), source=SOURCE, sink=broken)
    robot.order(first, 1)
    state = await robot.reaches("reverted", 1, running="")
    assert state.reason == (
        "the dataflow has failed: node sink exited with code 1: ModuleNotFoundError: no gripper"
    )


async def test_a_node_that_crashes_again_and_again_is_put_back_alone(robot, folder, pass_time):
    first = await confirmed(robot, folder)
    before = await robot.pids()
    nodes = flow(folder, restart_policy="always", restart_delay=0.1)
    second = robot.library.add("flow", nodes, source=SOURCE, sink=CRASHES_LATER, sequence=2)
    robot.order(second, 2, rules=HealthRules(min_healthy_time=100, healthy_deadline=300))
    await robot.reaches("probation", 2)
    # The deadline may find the node while it runs: the reason says what happened before.
    await eventually(lambda: (found := failing(robot, "steady")) and "exited" in found.text)
    pass_time(300)
    state = await robot.reaches("reverted", 2, running=first)
    assert "node sink" in state.reason
    assert "exited with code 1" in state.reason
    assert (await robot.pids())["source"] == before["source"]
    count = len(seen(folder))
    await until(lambda: len(seen(folder)) > count + 10)


async def test_an_output_that_became_slow_is_found(robot, folder, pass_time):
    # The usual rate is measured for longer than on a busy machine a source may wait for its turn.
    first = await confirmed(robot, folder, rules=replace(QUICK, min_healthy_time=2))
    await eventually(lambda: "source/number" in robot.store.releases["flow"].baseline.settled)
    second = robot.library.add("flow", flow(folder), source=SLOW_SOURCE, sink=SINK, sequence=2)
    robot.order(second, 2, rules=HealthRules(min_healthy_time=1.5, healthy_deadline=300))
    await robot.reaches("probation", 2)
    await eventually(
        lambda: failing(robot, "output source/number") and not failing(robot, "steady")
    )
    assert robot.state().phase == "probation"
    pass_time(300)
    state = await robot.reaches("reverted", 2)
    assert state.running == first
    slow = next(each for each in state.evidence if each.check == "output source/number")
    assert not slow.ok
    assert "at least" in slow.text
    allowed = HealthRules(min_healthy_time=0.5, healthy_deadline=120, quiet=["source/number"])
    robot.order(second, 3, rules=allowed, retry=True)
    await robot.reaches("confirmed", 3)


async def test_the_rate_of_an_output_that_begins_late_is_learned_afterwards(robot, folder):
    go = folder / "go"
    late = SOURCE.replace(
        'if event["type"] == "INPUT":',
        f'if event["type"] == "INPUT" and __import__("os").path.exists({str(go)!r}):',
    )
    first = robot.library.add("flow", flow(folder), source=late, sink=SINK)
    # Long enough for dorad to count the edges, also on a busy machine.
    robot.order(first, 1, rules=replace(QUICK, min_healthy_time=3))
    state = await robot.reaches("confirmed", 1)
    (output,) = (each for each in state.evidence if each.check == "output source/number")
    assert "no rate to compare it with is known yet" in output.text
    go.touch()
    baseline = robot.store.releases["flow"].baseline
    assert not baseline.rates
    await eventually(lambda: robot.store.releases["flow"].baseline.settled)
    assert robot.store.releases["flow"].baseline.rates["source/number"] > 0


async def test_a_busy_node_delays_a_switch_and_nothing_stops(robot, folder):
    work = folder / "work"
    nodes = [*flow(folder), {"id": "arm", "path": "arm.py", "env": {"WORK": str(work)}}]
    nodes[2]["inputs"] = {"tick": "dora/timer/millis/10"}
    first = robot.library.add("flow", nodes, source=SOURCE, sink=SINK, arm=BUSY)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    work.touch()
    client = await robot.daemon.client()
    async with asyncio.timeout(30):
        while not await client.leases():
            await client.node_info("arm")
    second = robot.library.add("flow", nodes, source=SOURCE, sink=NEW_SINK, arm=BUSY, sequence=2)
    robot.order(second, 2)
    state = await robot.reaches("staged", 2, waiting="busy")
    assert "holds a cup" in state.reason
    assert state.leases[0].owner.startswith("flow/arm (pid ")
    count = len(seen(folder))
    await until(lambda: len(seen(folder)) > count + 20)
    assert robot.state().phase == "staged"
    work.unlink()
    await robot.reaches("confirmed", 2, running=second)


async def test_a_dataflow_can_say_that_it_must_not_be_changed_now(robot, folder):
    ready = folder / "ready"
    first = robot.library.add("flow", flow(folder), source=SOURCE, sink=SINK)
    descriptor = robot.library.bundles[first].descriptor
    descriptor["safe_to_update"] = f"test -e {ready}"
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    robot.order(second, 2)
    state = await robot.reaches("staged", 2, waiting="busy")
    assert "safe_to_update exited with code 1" in state.reason
    ready.touch()
    await robot.reaches("confirmed", 2, running=second)


async def test_a_damaged_release_is_reported_and_an_order_can_replace_it(robot, folder):
    first = await confirmed(robot, folder)
    robot.library.damaged.add(first)
    await eventually(lambda: robot.state().damaged)
    assert robot.state().damaged == {first: "dataflow.yml is damaged or missing"}
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    robot.order(second, 2)
    state = await robot.reaches("staged", 2, waiting="busy")
    assert "safe_to_update cannot be read" in state.reason
    robot.order(second, 3, busy="ignore")
    state = await robot.reaches("confirmed", 3, running=second)
    assert sorted(state.restarted) == ["sink", "source"]
    await eventually(lambda: not robot.state().damaged)


async def test_a_robot_that_is_cut_off_after_the_switch_goes_back(robot, folder, pass_time):
    first = await confirmed(robot, folder)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    rules = HealthRules(min_healthy_time=0.5, healthy_deadline=900, confirm_deadline=300)
    robot.order(second, 2, rules=rules)
    await robot.reaches("switching", 2)
    robot.answers = False
    await robot.reaches("probation", 2)
    pass_time(300)
    state = await robot.reaches("reverted", 2)
    assert "no contact" in state.reason
    assert state.running == first


async def test_a_switch_that_is_reserved_begins_without_a_new_question_and_frees_leases(
    robot, folder, pass_time
):
    """Nothing can begin between the reservation and the switch, also not `safe_to_update`."""
    gate = folder / "gate"
    gate.touch()
    first = robot.library.add("flow", flow(folder), source=SOURCE, sink=SINK)
    robot.library.bundles[first].descriptor["safe_to_update"] = f"test -e {gate}"
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    client = await robot.daemon.client()
    lease = await client.take_lease("moves", 60)
    robot.order(second, 2, switch=False, arm=60)
    state = await robot.reaches("staged", 2, waiting="busy")
    assert (state.armed, [each.reason for each in state.leases]) == (False, ["moves"])
    await client.end_lease(lease.id)
    await robot.reaches("staged", 2, armed=True)
    with pytest.raises(ControlError, match="about to switch"):
        await client.take_lease("moves", 60)
    gate.unlink()
    # Its answer would be old after two seconds; it is not asked again.
    pass_time(5)
    await until(lambda: robot.state().armed)
    robot.order(second, 3)
    await robot.reaches("confirmed", 3, running=second)
    await client.end_lease((await client.take_lease("moves", 60)).id)


async def test_a_reservation_that_expires_leaves_everything_as_it_was(robot, folder):
    first = await confirmed(robot, folder)
    before = await robot.pids()
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    robot.order(second, 2, switch=False, arm=1)
    await robot.reaches("staged", 2, armed=True)
    await robot.reaches("staged", 2, armed=False)
    client = await robot.daemon.client()
    await client.end_lease((await client.take_lease("moves", 60)).id)
    assert (await robot.pids(), robot.state().running) == (before, first)
    robot.order(second, 3)
    await robot.reaches("confirmed", 3, running=second)


async def test_a_release_and_the_run_that_it_asks_for_are_stored_in_one_step(
    robot, folder, monkeypatch
):
    """At no moment a power cut leaves a release without its run: each write has both."""
    write, written = AssignmentStore._write, []

    def noted(store, sql, values):
        write(store, sql, values)
        if "assignment" in sql and len(values) == 2:
            written.append(msgspec.json.decode(values[1], type=Assignment))

    monkeypatch.setattr(AssignmentStore, "_write", noted)
    await confirmed(robot, folder)
    second = robot.library.add(
        "flow", flow(folder), source=SOURCE, sink="raise SystemExit(1)", sequence=2
    )
    robot.order(second, 2)
    await robot.reaches("reverted", 2)
    assert [each.release.step for each in written if each.is_behind] == []
    assert {each.release.step for each in written} >= {0, 1, 2, 3}
    asked = {each.run.order.generation for each in written if each.run is not None}
    assert asked == {each.release.step for each in written} - {0}


async def test_a_full_disk_keeps_no_robot_from_going_back(robot, folder, monkeypatch, caplog):
    caplog.set_level("INFO", "dorad.agent")
    first = await confirmed(robot, folder)
    before = await robot.pids()
    crash = folder / "crash"
    second = robot.library.add(
        "flow", flow(folder), source=SOURCE, sink=CRASHES_WHEN_TOLD % str(crash), sequence=2
    )
    robot.order(second, 2, rules=HealthRules(min_healthy_time=100, healthy_deadline=300))
    await robot.reaches("probation", 2)

    def full(*_):
        raise ControlError("unavailable", "the disk is full")

    with monkeypatch.context() as patch:
        # Neither then nor later is there room.
        patch.setattr(AssignmentStore, "_write", full)
        crash.touch()
        state = await robot.reaches("reverted", 2, running=first)
        assert "its order is in shares.db.reserve: the disk is full" in state.reason
        assert (await robot.pids())["source"] == before["source"]
        kept = [text for text in caplog.messages if " is in the reserve: " in text]
        assert {text.partition(" is ")[0] for text in kept} >= {"the assignment of flow"}
        caplog.clear()
        with pytest.raises(ControlError, match="full"):
            robot.order(first, 3)
        assert "is ordered" not in caplog.text
    third = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=3)
    robot.order(third, 3)
    await robot.reaches("confirmed", 3, running=third)


async def test_probes_decide_in_the_release_folder(robot, folder, pass_time):
    await confirmed(robot, folder)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    good = ["/bin/sh", "-c", "test -f sink.py"]
    bad = ["/bin/sh", "-c", "echo the arm does not answer >&2; exit 3"]
    rules = HealthRules(min_healthy_time=0.5, healthy_deadline=300, probes=[good, bad])
    robot.order(second, 2, rules=rules)
    await eventually(lambda: failing(robot, "probe 2"))
    pass_time(300)
    state = await robot.reaches("reverted", 2)
    one, two = (each for each in state.evidence if each.check.startswith("probe"))
    assert (one.ok, two.ok) == (True, False)
    assert "3" in two.text
    rules = HealthRules(min_healthy_time=0.5, healthy_deadline=120, probes=[good])
    robot.order(second, 3, rules=rules, retry=True)
    await robot.reaches("confirmed", 3)


async def test_a_command_that_hangs_delays_no_other_dataflow(robot, folder, monkeypatch):
    monkeypatch.setattr(probes, "TIMEOUT_S", 600.0)
    gate = folder / "gate"
    hangs = ["/bin/sh", "-c", f"while ! test -e {gate}; do sleep 0.05; done"]
    first = robot.library.add("flow", flow(folder), source=SOURCE, sink=SINK)
    robot.library.bundles[first].descriptor["safe_to_update"] = shlex.join(hangs)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK, sequence=2)
    robot.order(second, 2)
    waiter = [{"id": "waiter", "path": "waiter.py", "inputs": {"tick": "dora/timer/secs/1"}}]
    for name, rules in (
        ("probed", HealthRules(min_healthy_time=0.1, healthy_deadline=600, probes=[hangs])),
        ("other", QUICK),
    ):
        release = robot.library.add(name, waiter, waiter="for _ in __import__('dora').Node(): pass")
        robot.order(release, 1, dataflow=name, rules=rules)
    await robot.reaches("confirmed", 1, "other")
    await eventually(lambda: "have not ended yet" in str(robot.state("probed").evidence))
    assert robot.state().phase == "staged"
    gate.touch()
    await robot.reaches("confirmed", 2, running=second)
    await robot.reaches("confirmed", 1, "probed")


async def test_power_cuts_at_any_moment_of_a_switch_leave_one_confirmed_revision(
    frail_robot, folder, chance
):
    known = [await confirmed(frail_robot, folder)]
    for number in range(2, 5):
        source = dedent(SINK) + f"# version {number}\n"
        if number == 3:
            source = "raise SystemExit('broken')"
        release = frail_robot.library.add(
            "flow", flow(folder), source=SOURCE, sink=source, sequence=number
        )
        rules = HealthRules(min_healthy_time=0.5, healthy_deadline=120, confirm_deadline=120)
        frail_robot.order(release, number, rules=rules)
        moments = ["switching"] if number == 3 else ["switching", "probation"]
        await frail_robot.reaches(chance.choice(moments), number)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await frail_robot.cut_power()
        await eventually(lambda: frail_robot.state().phase in ("confirmed", "reverted"))
        state = frail_robot.state()
        assert state.running == state.confirmed
        assert state.confirmed in (known[-1], release)
        known.append(state.confirmed)
        count = len(seen(folder))
        await until(lambda count=count: len(seen(folder)) > count + 5)


async def test_a_robot_boots_offline_to_what_it_has_confirmed(frail_robot, folder):
    first = await confirmed(frail_robot, folder)
    frail_robot.answers = False
    await frail_robot.cut_power()
    count = len(seen(folder))
    await until(lambda: len(seen(folder)) > count + 5)
    assert (frail_robot.state().phase, frail_robot.state().running) == ("confirmed", first)


async def test_a_release_beyond_the_bounds_of_the_robots_file_changes_nothing(robot, folder):
    file = robot.folder / "dorad.toml"
    first = robot.library.add("flow", flow(folder), source=SOURCE, sink=SINK)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    before = await robot.pids()
    second = robot.library.add("flow", flow(folder), sequence=2, source=SOURCE, sink=NEW_SINK)
    for generation, (key, more) in enumerate(
        (
            ("nodes = ['flow/source']", {}),
            ("params = ['flow/source']", {"params": {"sink/speed": 1}}),
            ("max_param = 2", {"params": {"sink/speed": 100}}),
        ),
        start=2,
    ):
        file.write_text(f"[agent]\n{key}\n")
        robot.order(second, generation, **more)
        state = await robot.reaches("pending", generation, refused=True)
        assert (
            f"`{key.split()[0]}" in state.reason and "in [agent] of its dorad.toml" in state.reason
        )
    assert await robot.pids() == before
    # A mistake in the file allows nothing.
    file.write_text("[agent]\nnode = ['*/*']\n")
    robot.order(second, 6)
    state = await robot.reaches("pending", 6, refused=True)
    assert "does not say what it takes" in state.reason
    # Once the file allows it, the order is carried out.
    file.write_text("[agent]\nnodes = ['flow/*']\n")
    await robot.reaches("confirmed", 6, running=second)


async def test_files_are_waited_for_and_a_refused_release_changes_nothing(robot, folder):
    first = await confirmed(robot, folder)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK)
    robot.library.here.discard(second)
    robot.order(second, 2)
    state = await robot.reaches("pending", 2, waiting="files")
    assert state.running == first
    robot.library.here.add(second)
    robot.assignments.observe()
    await robot.reaches("confirmed", 2)
    other = robot.library.add("other", flow(folder), source=SOURCE, sink=SINK)
    robot.order(other, 3)
    state = await robot.reaches("pending", 3, refused=True)
    assert "a release of the dataflow other" in state.reason
    third = robot.library.add("flow", flow(folder), source=SOURCE, sink=SINK)
    robot.order(third, 4, switch=False)
    await robot.reaches("staged", 4)
    robot.library.refusal = "its key is revoked"
    robot.order(third, 4)
    state = await robot.reaches("pending", 4, refused=True)
    assert (state.reason, state.running) == ("its key is revoked", second)
    robot.library.refusal = ""
    robot.order(second, 5, params={"nobody/rate": 1})
    state = await robot.reaches("pending", 5, refused=True)
    assert "nobody/rate" in state.reason


async def test_a_dataflow_that_is_disabled_stops_and_comes_back(robot, folder):
    first = await confirmed(robot, folder)
    robot.order(first, 2, enabled=False)
    await robot.reaches("confirmed", 2, running="")
    await until(lambda: robot.assignments.states["flow"].status == "stopped")
    robot.order(first, 3)
    await robot.reaches("confirmed", 3, running=first)
    await until(lambda: robot.assignments.states["flow"].status == "running")
    assert robot.library.kept == {first}


async def test_the_next_agent_continues_after_a_kill(robot, folder):
    await confirmed(robot, folder)
    second = robot.library.add("flow", flow(folder), source=SOURCE, sink=NEW_SINK)
    robot.order(second, 2)
    for phase in ("switching", "probation"):
        await robot.reaches(phase, 2)
        await robot.kill()
        robot.start()
    await robot.reaches("confirmed", 2, running=second)
    numbers = seen(folder)
    assert numbers == list(range(len(numbers)))
