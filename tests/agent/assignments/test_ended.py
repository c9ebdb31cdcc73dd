"""Nodes that have ended since a release was confirmed: a switch and a return bring them to life."""

import msgspec
import pytest

from dorad.control.messages.releases import Rejection
from tests.agent.assignments.robot import NEW_SINK, QUICK, SINK, SOURCE, Robot, eventually
from tests.harness.flows import seen

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PASS_ON = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("number", event["value"])
"""
DIES = """
    import os
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            if os.path.exists(%r):
                raise SystemExit("con is broken")
            node.send_output("number", event["value"])
"""
STUBBORN = """
    import signal, time
    from dora import Node

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    node = Node()
    while True:
        if node.next(timeout=1.0) is None:
            time.sleep(0.1)
"""
"""It ends neither with its inputs, nor by the stop event, nor by SIGTERM."""
ONCE = """
    from dora import Node

    node = Node()
    for event in node:
        break
"""


def chain(folder, *, sink="idle", **con):
    """Return pub → con → `sink`, a node with both as sources, and one that ends by itself.

    The nodes of a switch are handled in the order of their names, too: see `sink`.
    """

    def reads(name, **inputs):
        own = folder / name
        own.mkdir(exist_ok=True)
        ports = {key: {"source": source, "queue_size": 1000} for key, source in inputs.items()}
        return {"id": name, "path": "sink.py", "inputs": ports, "env": {"SEEN": str(own / "seen")}}

    return [
        {
            "id": "pub",
            "path": "pub.py",
            "inputs": {"tick": "dora/timer/hz/25"},
            "outputs": ["number"],
        },
        {
            "id": "con",
            "path": "con.py",
            "inputs": {"number": "pub/number"},
            "outputs": ["number"],
            **con,
        },
        reads(sink, number="con/number"),
        reads("both", raw="pub/number", passed="con/number"),
        {"id": "once", "path": "once.py", "inputs": {"number": "pub/number"}},
    ]


def add(robot, nodes, con, sequence=1, sink=SINK):
    return robot.library.add(
        "flow", nodes, sequence=sequence, pub=SOURCE, con=con, sink=sink, once=ONCE,
        **{node["id"]: sink for node in nodes if node["path"] == "sink.py"},
    )  # fmt: skip


async def statuses(robot):
    client = await robot.daemon.client()
    return {node.node: node.status for node in await client.nodes()}


async def grows(folder):
    count = len(seen(folder))
    await eventually(lambda: len(seen(folder)) > count + 10)


async def broken(robot: Robot, folder, *, sink="idle", changed_sink=SINK):
    """Let a robot confirm a release, then one whose `con` dies afterwards; return both."""
    nodes = chain(folder, sink=sink)
    first = add(robot, nodes, PASS_ON)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    second = add(robot, nodes, DIES % str(folder / "die"), 2, changed_sink)
    robot.order(second, 2)
    await robot.reaches("confirmed", 2)
    (folder / "die").touch()
    await eventually(lambda: robot.state().failed and robot.state().ended)
    return first, second


@pytest.mark.parametrize("sink", ["idle", "after"])
@pytest.mark.parametrize("changed_sink", [SINK, NEW_SINK])
async def test_an_undo_brings_a_node_to_life_whose_inputs_had_closed(
    robot, folder, sink, changed_sink
):
    first, _ = await broken(robot, folder, sink=sink, changed_sink=changed_sink)
    state = robot.state()
    assert list(state.failed) == ["con"]
    assert state.ended == {sink: "has ended: its inputs closed"}
    assert "node con has failed" in state.reason
    robot.order(first, 3, allow_lower=True, retry=True)
    state = await robot.reaches("confirmed", 3, running=first)
    assert {"con", sink} <= set(state.restarted)
    now = await statuses(robot)
    # One that had finished by itself is not run again.
    assert now.pop("once") == "stopped"
    assert set(now.values()) == {"running"}
    await eventually(lambda: not robot.state().ended and not robot.state().failed)
    assert not robot.state().reason
    await grows(folder / sink)
    await grows(folder / "both")


async def test_the_input_of_a_running_node_opens_again_with_its_source(robot, folder):
    first, _ = await broken(robot, folder)
    robot.order(first, 3, allow_lower=True, retry=True)
    await robot.reaches("confirmed", 3, running=first)
    client = await robot.daemon.client()
    nodes = {node.node: node for node in await client.nodes()}
    assert nodes["both"].broken_inputs == []
    assert nodes["both"].restarts == 0
    numbers = seen(folder / "both")
    # From `pub` and from `con`: only with both do numbers come twice.
    await eventually(lambda: len(set(new := seen(folder / "both")[len(numbers) :])) < len(new))


async def test_an_order_for_what_is_confirmed_starts_its_dead_nodes(robot, folder):
    _, second = await broken(robot, folder)
    (folder / "die").unlink()
    robot.order(second, 3)
    state = await robot.reaches("confirmed", 3, running=second)
    assert state.restarted == ["con", "idle"]
    await eventually(lambda: not robot.state().ended and not robot.state().failed)


async def test_an_order_to_stay_starts_nothing(robot, folder):
    _, second = await broken(robot, folder)
    robot.order(second, 3, stay=True)
    state = await robot.reaches("confirmed", 3, running=second)
    assert state.ended
    assert (await statuses(robot))["idle"] == "stopped"


async def test_a_return_by_the_robot_brings_nodes_to_life_too(robot, folder):
    nodes = chain(folder)
    first = add(robot, nodes, PASS_ON)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    (folder / "die").touch()
    second = add(robot, nodes, DIES % str(folder / "die"), 2)
    robot.order(second, 2, rules=QUICK)
    await robot.reaches("reverted", 2, running=first)
    await grows(folder / "idle")
    await grows(folder / "both")
    await eventually(lambda: not robot.state().ended and not robot.state().failed)


async def test_a_robot_that_fails_in_its_soak_goes_back_with_all_its_nodes(robot, folder):
    nodes = chain(folder)
    first = add(robot, nodes, PASS_ON)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    second = add(robot, nodes, DIES % str(folder / "die"), 2)
    robot.order(second, 2, soak_time=600)
    await robot.reaches("confirmed", 2, running=second)
    (folder / "die").touch()
    state = await robot.reaches("reverted", 2, running=first)
    assert state.reason.startswith("failed after its confirmation: node con has failed")
    await grows(folder / "idle")
    await grows(folder / "both")
    assert (await statuses(robot))["once"] == "stopped"


async def test_what_was_undone_is_not_gone_back_to(robot, folder):
    first, second = await broken(robot, folder)
    robot.library.scripts[first]["con"] = "raise SystemExit('first is broken, too')"
    (robot.library.bundles[first].folder / "con.py").write_text("raise SystemExit(4)")
    robot.order(
        first, 3, allow_lower=True, retry=True, rejects=[Rejection(release=second, reason="undone")]
    )
    state = await robot.reaches("stuck", 3)
    assert state.release == first
    assert "every release that was confirmed here has failed or was undone" in state.reason


@pytest.mark.parametrize("how", [{"force": True}, {"grace": 0.2}], ids=["force", "grace"])
@pytest.mark.parametrize("stays", [True, False])
async def test_a_dataflow_that_is_stopped_in_its_soak_has_not_failed_and_an_undo_starts_it(
    robot, folder, how, stays
):
    """Also if its nodes had to be killed. `stays` is the order of a rollout that goes on."""
    nodes = chain(folder)
    first = add(robot, nodes, PASS_ON)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    second = add(robot, nodes, STUBBORN, 2)
    robot.order(second, 2, soak_time=600, rules=msgspec.structs.replace(QUICK, min_rate=0))
    await robot.reaches("confirmed", 2)
    client = await robot.daemon.client()
    await client.stop("flow", **how)
    # Whatever it takes the end for, it has seen it by then.
    robot.order(second, 3, soak_time=600, stay=stays)
    state = await robot.reaches("confirmed", 3, release=second)
    assert not state.failed
    if stays:
        assert [each.name for each in await client.list() if each.status == "running"] == []
    robot.order(first, 4, allow_lower=True, rejects=[Rejection(second, "undone", whole=True)])
    await robot.reaches("confirmed", 4, running=first)
    now = await statuses(robot)
    assert {node for node, status in now.items() if status == "running"} == {*now} - {"once"}
