"""One dataflow over two robots with real programs: coordinator, agents, daemons, links, nodes."""

import asyncio
import os
import re
import shlex
import signal
import time

import pytest
import pytest_asyncio

from dorad.commandline.reports import report_end
from dorad.commandline.startprogress import wait_for_start
from dorad.control import messages as m
from dorad.control.client import Client
from dorafleet.console.view import auditrows
from dorafleet.console.widgets.ask import Ask
from dorafleet.console.widgets.confirm import Choose, Confirm
from dorafleet.console.widgets.grid import Grid
from dorafleet.coordinator.messages import AUDIT_READ, AuditRead
from tests.console.driving import console_at
from tests.harness.commands import run_command
from tests.harness.waiting import until

from .machines import DESCRIPTOR, TALKER, fleet_of_two

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def programs(tmp_path_factory):
    """The programs of a fleet, which serve all tests."""
    async with fleet_of_two(tmp_path_factory.mktemp("fleet") / "two") as found:
        yield found


@pytest.fixture
async def fleet(programs):
    yield programs
    client = await programs.again()
    try:
        for flow in await client.list():
            if flow.ended_at is None:
                stop = m.Stop(dataflow=flow.uuid, force=True)
                await client.call(m.DATAFLOW_STOP, stop)
        await client.clean()
    finally:
        await client.close()


async def numbers(client, count, **options):
    """Return the next numbers that the listener has printed."""
    found = []
    params = m.LogRead(dataflow="talk", nodes=["listener"], follow=True, **options)
    async with asyncio.timeout(60), client.stream(m.LOGS_READ, params) as frames:
        async for frame in frames:
            for line in frame.lines:
                assert line.machine == "arm2"
                if line.message.startswith("got "):
                    found.append(int(line.message[4:]))
            if len(found) >= count:
                return found[:count]
    raise AssertionError(found)


async def start(client, fleet):
    params = m.Start(descriptor=DESCRIPTOR, path=fleet.path, name="talk")
    started = await client.call(m.DATAFLOW_START, params)
    wait = m.Wait(dataflow="talk", until="running", timeout=60)
    assert (await client.call(m.DATAFLOW_WAIT, wait)).status == "running"
    return started


async def processes(client):
    nodes = (await client.call(m.NODE_LIST, m.Ref(dataflow="talk"))).nodes
    return {
        node.node: (node.machine, node.pid) for node in nodes if node.node in ("talker", "listener")
    }


async def until_processes(client, wanted):
    """Wait until these processes, and no others, are those of the nodes."""

    def are_these(found):
        assert not set(found.values()) - set(wanted.values())
        return found == wanted

    await until(lambda: processes(client), are_these)


async def test_data_flows_between_robots_from_the_first_message_to_the_stop(fleet):
    async with fleet.client() as client:
        await start(client, fleet)
        assert await numbers(client, 20) == list(range(1, 21))
        where = await processes(client)
        assert {node: machine for node, (machine, _) in where.items()} == {
            "talker": "arm1",
            "listener": "arm2",
        }
        async with asyncio.timeout(30), client.echo(["talker/out"], dataflow="talk") as messages:
            first, second = [(await anext(messages))[1][0].as_py() for _ in range(2)]
        assert second == first + 1
        stopped = await client.call(m.DATAFLOW_STOP, m.Stop(dataflow="talk"))
        assert stopped.status == "finished"
        results = {each.node: each.outcome for each in stopped.results}
        assert (results["talker"], results["listener"]) == ("ok", "ok")


async def test_the_console_shows_both_robots_and_names_a_killed_node(fleet, tmp_path):
    async with fleet.client() as client, console_at(fleet.target, size=(160, 45)) as driven:
        await start(client, fleet)
        await driven.until("2 robots: OK 2")
        await driven.type(":graph talk\r")
        await driven.until(lambda: re.search(r"talker .*/s─*▶.*[ >]listener", driven.text))
        await driven.type("\x1b:topic talk talker/out echo\r")
        await driven.until("int64")
        await driven.type("\x1b:logs talk listener\r")
        await driven.until("got 1")
        await driven.type("\x1b")
        pids = await processes(client)
        killed = time.time()
        os.kill(pids["listener"][1], signal.SIGKILL)
        await driven.until(lambda: re.search(r"arm2 .*node listener (failed|was)", driven.text))
        assert driven.app.server.alerts[0].since >= killed - 1
        await driven.type("y")
        await driven.until(lambda: driven.app.copied)
        (tmp_path / "dorafleet").symlink_to(fleet.folder / "state")
        variables = {
            "XDG_STATE_HOME": str(tmp_path),
            "DORA_COORDINATOR_ADDR": "127.0.0.1",
            "DORA_COORDINATOR_PORT": str(fleet.port),
        }
        program, *words = shlex.split(driven.app.copied)
        env = os.environ | variables
        grid = driven.app.screen.query_one("#robots", Grid)

        async def both():
            done = await asyncio.to_thread(run_command, program, words, env=env, timeout=60)
            printed = [line.split()[1:3] for line in done.stdout.splitlines() if "arm" in line]
            return printed, [row.split()[1:3] for row in grid.as_text() if "arm" in row]

        # The dataflow may be ending between the two.
        await until(both, lambda seen: seen[0] == seen[1])


async def test_what_is_done_in_the_console_is_in_the_audit_under_its_operator(fleet):
    """An incident, a node, and the dataflow: each after a question, and nothing without it."""
    box = {"folder": "box", "keep": "60s", "topics": ["talker/out"]}
    async with fleet.client() as client, console_at(fleet.target, size=(120, 40)) as driven:
        params = m.Start(descriptor=DESCRIPTOR | {"record": box}, path=fleet.path, name="talk")
        run = (await client.call(m.DATAFLOW_START, params)).uuid
        wait = m.Wait(dataflow="talk", until="running", timeout=60)
        await client.call(m.DATAFLOW_WAIT, wait)
        await numbers(client, 5)
        before = (await client.call(AUDIT_READ, AuditRead(limit=1))).head.partition(":")[0]
        await driven.until("2 robots: OK 2")
        await driven.type(":dataflows\r")
        await driven.until("1 of 1")
        await driven.press("a")
        await driven.until("Mark an incident")
        await driven.press("i")
        await driven.until("which may be empty")
        await driven.type("missed the dock\r")
        await driven.until("Do it")
        await driven.press("escape")
        await driven.until("nothing was changed")
        after = (await client.call(AUDIT_READ, AuditRead(limit=1))).head.partition(":")[0]
        assert after == before
        await done(driven, "i", "missed the dock\r")
        text = " ".join((await driven.until("arm1: incident ")).split())
        (incident,) = (
            (await client.call(m.INCIDENT_LIST, m.Ref(dataflow="talk"))).boxes[0].incidents
        )
        assert incident.id in text
        assert incident.note == "missed the dock"
        await done(driven, "R")
        await driven.until("Restart the dataflow: done")
        await driven.type(":top\r")
        await driven.until("talker")
        while (node := driven.app.screen.target().node) not in ("talker", "listener"):
            await driven.press("down")
        await done(driven, "r")
        await driven.until("Restart the node: done")
        page = await client.call(AUDIT_READ, AuditRead(after=int(before), limit=100))
        made = [
            each.record
            for each in page.records
            if each.record["action"] in ("incident.mark", "dataflow.restart", "node.restart")
        ]
        assert [each["action"] for each in made] == [
            "incident.mark", "dataflow.restart", "node.restart",
        ]  # fmt: skip
        assert made[0]["note"] == "missed the dock" and made[0]["dataflow"] == run
        assert made[2]["node"] == node
        (me,) = {auditrows.who(each) for each in made}
        assert incident.source == me
        assert me == "admin", "the name in the certificate"
        assert {each["client"] for each in made} == {"dorafleet console"}
        await driven.type(":audit\r")
        text = await driven.until("node.restart")
        assert re.search(rf"{me} +incident\.mark {run}: note missed the dock", text), text


async def done(driven, key, typed=""):
    """Do what a key of the actions stands for, and answer its question with yes."""
    await driven.press("a")
    await driven.until(lambda: isinstance(driven.app.screen, Choose))
    await driven.press(key)
    if typed:
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        await driven.type(typed)
    await driven.until(lambda: isinstance(driven.app.screen, Confirm))
    await driven.press("right")
    await driven.until(lambda: driven.app.screen.query_one("#go").has_focus)
    await driven.press("enter")


async def test_nodes_notice_nothing_of_a_killed_coordinator_nor_of_killed_agents(tmp_path):
    async with fleet_of_two(tmp_path) as fleet:
        async with fleet.client() as client:
            await start(client, fleet)
            before = await processes(client)
            await numbers(client, 5)
            for robot in fleet.robots.values():
                robot.agent.end(signal.SIGKILL)
                robot.agent.start()
        fleet.coordinator.end(signal.SIGKILL)
        fleet.coordinator.start()
        client = await fleet.again()
        try:
            # Both connect again; then what they run is known again.
            await until_processes(client, before)
            found = await numbers(client, 40)
            assert found == list(range(1, 41))
            stopped = await client.call(m.DATAFLOW_STOP, m.Stop(dataflow="talk"))
            assert stopped.status == "finished"
        finally:
            await client.close()


async def test_a_node_that_is_never_ready_fails_the_start_by_the_name_of_its_robot(fleet, tmp_path):
    async with fleet.client() as client:
        (tmp_path / "talker.py").write_text(TALKER)
        (tmp_path / "listener.py").write_text("import time\ntime.sleep(600)\n")
        path = str(tmp_path / "flow.yml")
        # The other robot is ready by then, on a slow machine too.
        params = m.Start(descriptor=DESCRIPTOR, path=path, name="talk", hold=8)
        await client.call(m.DATAFLOW_START, params)
        wait = m.Wait(dataflow="talk", until="running", timeout=100)
        await client.call(m.DATAFLOW_WAIT, wait)
        # The listener ends only when it is killed.
        stop = m.Stop(dataflow="talk", force=True)
        state = await client.call(m.DATAFLOW_STOP, stop)
        assert state.status == "failed"
        assert "`arm2` is not ready after 8 s: it is starting" in state.failures[0].headline
        assert "`arm1`" not in state.failures[0].headline


def start_there(target, path):
    """Start as `dora start --detach` does, with a short time for the start; return the code."""
    with Client(target) as client:
        params = m.Start(descriptor=DESCRIPTOR, path=path, name="talk", hold=8)
        started = client.call(m.DATAFLOW_START, params)
        return 0 if report_end(wait_for_start(client, started.uuid)) else 1


async def test_a_start_that_is_too_slow_names_its_nodes_and_the_timeout(fleet, tmp_path, capsys):
    (tmp_path / "talker.py").write_text(TALKER)
    (tmp_path / "listener.py").write_text("import time\ntime.sleep(600)\n")
    code = await asyncio.to_thread(start_there, fleet.target, str(tmp_path / "flow.yml"))
    out, err = capsys.readouterr()
    print(out, err)
    assert code == 1
    assert "node listener did not call Node()" in err
    assert "`startup_timeout`" in err
    assert "talker did not call" not in err


async def test_nodes_and_edges_come_and_go_over_both_robots_while_it_runs(fleet):
    async with fleet.client() as client:
        await start(client, fleet)
        before = await processes(client)
        await numbers(client, 3)

        async def change(method, params):
            return (await client.call(method, params)).changes

        spare = {"id": "spare", "path": "listener.py", "inputs": {"in": "talker/out"}}
        spare["deploy"] = {"machine": "arm2"}
        added = m.NodeAdd(definition=spare, dataflow="talk")
        assert await change(m.NODE_ADD, added) == ["added node spare"]
        read = m.LogRead(dataflow="talk", nodes=["spare"], follow=True)
        async with asyncio.timeout(60), client.stream(m.LOGS_READ, read) as frames:
            frame = await anext(frames)
            assert frame.lines[0].machine == "arm2"
            assert frame.lines[0].message.startswith("got ")
        edge = {"source": "talker/out", "target": "spare/in", "dataflow": "talk"}
        assert "disconnected talker/out -> spare/in" not in await change(
            m.NODE_DISCONNECT, m.EdgeRef(**edge)
        )
        await change(m.NODE_CONNECT, m.EdgeNew(**edge))
        assert await change(m.NODE_REMOVE, m.NodeStop(node="spare", dataflow="talk")) == []
        assert await processes(client) == before
        # With the same definition only the program may differ: the node is replaced all the same.
        same = m.NodeReplace(
            node="listener", definition=DESCRIPTOR["nodes"][1], dataflow="talk", grace=1
        )
        assert await change(m.NODE_REPLACE, same) == []
        replaced = await processes(client)
        assert replaced["talker"] == before["talker"]
        assert replaced["listener"] != before["listener"]
        found = await numbers(client, 50)
        assert found == list(range(1, 51))
