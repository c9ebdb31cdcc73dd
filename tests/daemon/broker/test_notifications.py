"""Conditions of a node reach each of its processes, once."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dorad.daemon.broker.state import Conditions
from dorad.daemon.rules.health import Vitals
from dorad.node.protocol import ProtocolError
from tests.daemon.broker.test_topology import COUNTER, WRITER, lines
from tests.daemon.clients import Client, Program, Stage, four_nodes, stage
from tests.daemon.fakes import FakeChanges
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

CONFIG = """
import json, sys
from dora import Node
node = Node()
with open(sys.argv[1], "a") as file:
    print(json.dumps([node.restart_count(), node.params()]), file=file, flush=True)
    for event in node:
        print(json.dumps([event["type"], event.get("id")]), file=file, flush=True)
"""


def test_a_condition_holds_once_and_stop_is_the_last_event() -> None:
    conditions = Conditions()
    assert conditions.add("stop", {"reason": "MANUAL"})
    assert conditions.add("closed", {"input": "x"})
    assert not conditions.add("closed", {"input": "x"})
    assert conditions.add("broken", {"input": "x"})
    assert conditions.add("failed", {"source_node_id": "a", "error": "1", "affected_input_ids": []})
    assert conditions.add("failed", {"source_node_id": "a", "error": "2", "affected_input_ids": []})
    assert [kind for kind, _ in conditions] == ["closed", "broken", "failed", "stop"]
    assert conditions.drop("broken", "x")
    assert not conditions.drop("broken", "x")
    assert [kind for kind, _ in Conditions([*conditions])] == ["closed", "failed", "stop"]


@pytest.mark.parametrize(("reason", "left"), [("MANUAL", 0), ("ALL_INPUTS_CLOSED", 1)])
def test_only_a_manual_stop_was_meant_for_one_process(reason: str, left: int) -> None:
    conditions = Conditions([("stop", {"reason": reason})])
    conditions.drop_manual_stop()
    assert len(conditions) == left


async def kinds(client: Client) -> list[str]:
    """The packets that a client gets before the start."""
    client.send_packet("ready")
    found: list[dict[str, Any]] = []
    while not found or found[-1]["t"] != "start":
        found.append(await client.packet())
    return [packet["t"] for packet in found if packet["t"] not in ("peer", "edges", "start")]


async def follow(on: Stage) -> list[str]:
    """The packets that a process gets that attaches as `c` now."""
    async with on.attached("c") as client:
        output = await kinds(client)
    await until(lambda: not on.broker.stats.vitals("c").connected)
    return output


async def test_a_packet_to_a_process_that_has_ended_is_not_lost() -> None:
    async with stage() as on:
        async with on.attached("c"):
            on.broker.notifications.close_input("c", "x")
            on.broker.notifications.stop("c", "ALL_INPUTS_CLOSED")
        on.broker.released("c")
        assert await follow(on) == ["closed", "stop"]
        assert await follow(on) == ["closed", "stop"]


async def test_conditions_that_no_longer_hold_are_not_sent() -> None:
    async with stage() as on:
        on.broker.notifications.input_broken("c", "x")
        on.broker.notifications.node_failed("c", "a", "it broke", ["x"])
        on.broker.notifications.close_input("c", "x")
        assert await follow(on) == ["broken", "failed", "closed"]
        on.broker.notifications.node_restarted("c", "a")
        assert await follow(on) == ["broken"]
        on.broker.notifications.input_recovered("c", "x")
        assert await follow(on) == []


async def test_a_stop_for_a_restart_does_not_reach_the_next_process() -> None:
    async with stage() as on:
        on.broker.notifications.stop("c", "MANUAL")
        on.broker.restarting("c", 1)
        on.broker.released("c")
        assert await follow(on) == []
        on.broker.notifications.stop("c", "MANUAL")
        assert await follow(on) == ["stop"]
        on.broker.reopen("c")
        assert await follow(on) == []


async def test_queued_messages_reach_the_next_process(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on, Program(on, "a", COUNTER):
        async with Program(on, "b", WRITER, out):
            await until(lambda: len(lines(out, "x")) > 20)
        on.broker.released("b")
        seen = len(lines(out, "x"))
        sent = on.broker.stats.counters()[0].sent
        await until(lambda: on.broker.stats.counters()[0].sent > sent + 30)
        async with Program(on, "b", WRITER, out):
            await until(lambda: len(lines(out, "x")) > seen + 40)
        numbers = [int(line.split()[1]) for line in lines(out, "x")]
        assert len(numbers) == len(set(numbers))


async def test_a_node_that_exited_for_good_may_be_reopened(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on, Program(on, "a", COUNTER):
        async with Program(on, "b", WRITER, out):
            await until(lambda: len(lines(out, "x")) > 5)
            on.broker.notifications.stop("b", "MANUAL")
        on.broker.detach("b")
        on.broker.reopen("b")
        async with Program(on, "b", WRITER, out):
            seen = len(lines(out, "x"))
            await until(lambda: len(lines(out, "x")) > seen + 20)
        (edge,) = on.broker.stats.counters()
        assert edge.sent == edge.received + edge.dropped + edge.queued


async def test_each_process_has_its_own_configuration(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        on.broker.params.replace("b", {"gain": 1.5, "name": "left"})
        async with Program(on, "b", CONFIG, out):
            await until(lambda: on.broker.stats.vitals("b").asleep)
            assert on.broker.params.update("b", "gain", 2.5)
            assert on.broker.params.delete("b", "name")
            await until(lambda: len(lines(out)) == 3)
        on.broker.released("b")
        await until(lambda: not on.broker.stats.vitals("b").connected)
        on.broker.restarting("b", 1)
        assert not on.broker.params.update("b", "mode", "fast")
        async with Program(on, "b", CONFIG, out):
            await until(lambda: len(lines(out)) == 4)
        assert [json.loads(line) for line in lines(out)] == [
            [0, {"gain": 1.5, "name": "left"}],
            ["PARAM_UPDATE", "gain"],
            ["PARAM_DELETED", "name"],
            [1, {"gain": 2.5, "mode": "fast"}],
        ]


async def test_a_parameter_too_large_is_refused_and_harms_no_node() -> None:
    async with stage() as on:
        async with on.attached("c") as client:
            with pytest.raises(ProtocolError):
                on.broker.params.update("c", "huge", "x" * 70_000)
            assert on.broker.params.update("c", "small", 1)
            assert (await client.packet_of("param"))["value"] == 1


async def test_vitals_show_whether_a_node_waits_and_reads(tmp_path: Path) -> None:
    b = replace(node("b", x="a/out"), health_check_timeout=5.0)
    async with stage(dataflow(node("a"), b)) as on:
        assert on.broker.stats.vitals("b") == Vitals(False, False, 0, False, 0, 0)
        async with Program(on, "b", WRITER, tmp_path / "b") as program:
            await until(lambda: on.broker.stats.vitals("b").asleep)
            assert on.broker.stats.vitals("b").connected
            on.broker.notifications.ping("b")
            await until(lambda: not on.broker.stats.vitals("b").unread)
            os.kill(program.process.pid, 19)
            on.broker.notifications.ping("b")
            assert on.broker.stats.vitals("b").unread
            async with Program(on, "a", COUNTER):
                await until(lambda: on.broker.stats.vitals("b").queued == 10)
            pulse = on.broker.stats.vitals("b").pulse
            os.kill(program.process.pid, 18)
            await until(lambda: on.broker.stats.vitals("b").pulse > pulse + 5)
            await until(lambda: not on.broker.stats.vitals("b").unread)


async def test_every_change_of_the_snapshot_is_a_change() -> None:
    changes = FakeChanges()
    async with stage(four_nodes(), changes=changes) as on:
        seen = [msgspec.json.encode(on.broker.snapshot())]
        changes.on_change = lambda: seen.append(msgspec.json.encode(on.broker.snapshot()))
        for change in (
            lambda: on.broker.notifications.stop("c", "MANUAL"),
            lambda: on.broker.notifications.close_input("c", "x"),
            lambda: on.broker.restarting("c", 1),
            lambda: on.broker.released("c"),
            lambda: on.broker.params.replace("c", {"a": 1}),
            lambda: on.broker.detach("c"),
            lambda: on.broker.reopen("c"),
            lambda: on.broker.topology.remove_edge("c", "x"),
            lambda: on.broker.topology.remove_node("b"),
            lambda: on.broker.notifications.abort_start("no"),
        ):
            count = len(seen)
            change()
            assert len(seen) > count
            assert seen[-1] == msgspec.json.encode(on.broker.snapshot())
