"""Link processes between two brokers, over real Zenoh sessions on loopback."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dorad.dataflow.model import LINK, QueuePolicy
from dorad.link import frames
from dorad.link.process import DRAIN_S
from tests.daemon.clients import Program, Stage
from tests.daemon.flows import dataflow, node
from tests.link.certificates import Authority
from tests.link.links import (
    DEADLINE_S,
    RECEIVER,
    SENDER,
    Connected,
    Link,
    Pair,
    lines,
    machines_of,
    pair,
    with_policy,
)

pytestmark = pytest.mark.long

ENDLESS = 10**6
BACKPRESSURE = QueuePolicy.BACKPRESSURE


async def connect(machines: Pair, **changed: object) -> tuple[Link, Link]:
    """Start both link processes, and wait until they have greeted each other."""
    alpha = machines.start_alpha(**changed)
    beta = machines.start_beta()
    await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
    await beta.until(lambda: beta.peer("alpha").get("state") == "up")
    return alpha, beta


def dropped(on: Stage, node: str) -> int:
    """Return how many messages were dropped in the queue of a node."""
    return sum(each.dropped for each in on.broker.stats.counters() if each.node == node)


def sent_to(on: Stage, node: str) -> int:
    """Return how many messages were sent to a node."""
    return sum(each.sent for each in on.broker.stats.counters() if each.node == node)


def taken(on: Stage, node: str) -> int:
    """Return how many messages a node has taken."""
    return sum(each.received for each in on.broker.stats.counters() if each.node == node)


def lost(on: Stage, node: str) -> int:
    """Return how many messages for a node were lost between machines."""
    return sum(each.lost for each in on.broker.stats.counters() if each.node == node)


async def test_messages_arrive_as_they_were_sent(tmp_path: Path) -> None:
    out, other, sent = tmp_path / "b", tmp_path / "c", tmp_path / "a"
    async with pair() as machines:
        alpha, beta = await connect(machines)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Connected(machines.beta, "c", RECEIVER, other),
            Program(machines.alpha, "a", SENDER, 20, 80, 0.002, sent),
        ):
            await beta.until(lambda: len(lines(out)) == len(lines(other)) == 20)
        assert lines(out) == [f"{n} 10 int64 True frame" for n in range(20)]
        assert await alpha.stop() == await beta.stop() == 0
        # The broker may take the last status after the end of the process.
        await alpha.until(lambda: alpha.status()["outgoing"][0]["sent"] == 20)
        await beta.until(lambda: beta.status()["incoming"][0]["received"] == 20)


@pytest.mark.parametrize("size", [8, 200, 1 << 16, frames.MAX_FRAGMENT, 5 << 20])
async def test_messages_of_any_size_arrive_whole(size: int, tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair(BACKPRESSURE, 4) as machines:
        await connect(machines, reliable=True)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 10, size, 0, sent),
        ):
            await machines.links[1].until(lambda: len(lines(out)) == 10)
        assert lines(out) == [f"{n} {size // 8} int64 True frame" for n in range(10)]


STRINGS = """
import sys
import pyarrow as pa
from dora import Node
node = Node()
deep = pa.array([{"a": [1, None], "b": "x"}, None] * int(sys.argv[1]))
for value in (pa.array(["é", None, "abc"] * 1000), deep, pa.nulls(3), pa.array([], pa.int8())):
    node.send_output("out", value, {"text": "x" * 3000, "numbers": [1, 2]})
node.next(timeout=5)
"""

SHOW = """
import hashlib, sys
from dora import Node
for event in Node():
    if event["type"] == "INPUT":
        with open(sys.argv[1], "a") as out:
            value, meta = event["value"], event["metadata"]
            value.validate(full=True)
            out.write(f"{value.type} {len(value)} {value.null_count} {len(meta['text'])}\\n")
"""


ZOO = """
import sys
import pyarrow as pa
from dora import Node
from dorad.shm import arrow
from tests.shm import zoo

def refuse(*_, **__):
    raise AssertionError("an Arrow stream was used")

arrow.encode_stream = arrow.decode_stream = refuse
ARRAYS = [*zoo.messages(), *zoo.dictionaries(), *zoo.nested_of(next(zoo.leaves()))]
node = Node()
"""

SEND_ZOO = f"""{ZOO}
for number, array in enumerate(ARRAYS):
    node.send_output("out", array, {{"number": number}})
node.next(timeout=30)
"""

CHECK_ZOO = f"""{ZOO}
for event in node:
    if event["type"] in ("INPUT", "ERROR"):
        array, value = ARRAYS[event["metadata"]["number"]], event["value"]
        value.validate(full=True)
        same = value.type.equals(array.type, check_metadata=True) and value.equals(array)
        with open(sys.argv[1], "a") as out:
            out.write(f"{{event['metadata']['number']}} {{same}} {{len(ARRAYS)}}\\n")
"""


async def test_nested_arrays_cross_a_link_as_bare_buffers(tmp_path: Path) -> None:
    out = tmp_path / "b"
    async with pair(BACKPRESSURE, 100) as machines:
        await connect(machines, reliable=True)
        async with (
            Connected(machines.beta, "b", CHECK_ZOO, out),
            Program(machines.alpha, "a", SEND_ZOO),
        ):
            await machines.links[1].until(lambda: len(lines(out)) > 25)
    count = len(lines(out))
    assert lines(out) == [f"{number} True {count}" for number in range(count)]


async def test_arrays_of_any_type_arrive_with_their_metadata(tmp_path: Path) -> None:
    out = tmp_path / "b"
    async with pair() as machines:
        await connect(machines)
        async with (
            Connected(machines.beta, "b", SHOW, out),
            Program(machines.alpha, "a", STRINGS, 500),
        ):
            await machines.links[1].until(lambda: len(lines(out)) == 4)
    deep = "struct<a: list<item: int64>, b: string> 1000 500 3000"
    assert lines(out) == ["string 3000 1000 3000", deep, "null 3 3 3000", "int8 0 0 3000"]


async def test_the_threads_that_wait_for_sockets_are_those_that_run_callbacks() -> None:
    async with pair() as machines:
        for link in await connect(machines):
            runtimes = runtimes_of(link.process.pid)
            assert "rx" in runtimes
            assert not runtimes & {"acc", "net"}


def runtimes_of(pid: int) -> set[str]:
    """Return the runtimes of Zenoh that have threads in a process."""
    threads = Path(f"/proc/{pid}/task").glob("*/comm")
    return {comm.read_text().partition("-")[0] for comm in threads}


async def test_backpressure_makes_the_sender_on_the_other_machine_wait(tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair(BACKPRESSURE, 3) as machines:
        alpha, beta = await connect(machines, reliable=True)
        async with (
            Connected(machines.beta, "b", RECEIVER, out) as receiver,
            Program(machines.alpha, "a", SENDER, 400, 8000, 0, sent),
        ):
            await beta.until(lambda: len(lines(out)) > 5)
            receiver.process.send_signal(signal.SIGSTOP)
            seen, since = -1, time.monotonic()

            def stands() -> bool:
                nonlocal seen, since
                now = len(lines(sent))
                if now != seen:
                    seen, since = now, time.monotonic()
                return time.monotonic() - since > 1

            await alpha.until(lambda: alpha.status()["outgoing"][0]["on_the_way"] > 0)
            await alpha.until(stands)
            assert seen - len(lines(out)) < 64 + 20, "it does not wait"
            receiver.process.send_signal(signal.SIGCONT)
            await beta.until(lambda: len(lines(out)) == 400)
        assert lines(out) == [f"{n} 1000 int64 True frame" for n in range(400)]
        assert dropped(machines.alpha, LINK) == dropped(machines.beta, "b") == 0


async def test_a_cut_loses_exactly_what_is_counted_and_data_flows_again(tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair() as machines:
        cable = await machines.cable()
        alpha, beta = await connect(machines)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 2000, 0.001, sent) as sender,
        ):
            await beta.until(lambda: len(lines(out)) > 50)
            await cable.cut()
            await alpha.until(lambda: alpha.peer("beta")["state"] != "up")
            await beta.until(lambda: beta.peer("alpha")["state"] != "up")
            assert "no link process of alpha" in beta.peer("alpha")["reason"]
            before = len(lines(sent))
            await alpha.until(lambda: len(lines(sent)) > before + 300)
            await cable.heal()
            healed = time.monotonic()
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 100)
            flowed = time.monotonic() - healed
            sender.process.kill()
            await sender.ended()
            await beta.until(lambda: settled(machines, alpha, beta))
        outgoing = alpha.status()["outgoing"][0]
        assert flowed < 30
        assert outgoing["lost"] == lost(machines.beta, "b")
        numbers = [int(line.split()[0]) for line in lines(out)]
        assert numbers == sorted(set(numbers))
        missing = numbers[-1] + 1 - len(numbers)
        in_queues = dropped(machines.alpha, LINK) + dropped(machines.beta, "b")
        assert missing == outgoing["lost"] + in_queues
        assert missing > 100


def settled(machines: Pair, alpha: Link, beta: Link) -> bool:
    """Whether the statuses count all messages that the link has taken."""
    outgoing, incoming = alpha.status()["outgoing"][0], beta.status()["incoming"][0]
    count = taken(machines.alpha, LINK)
    queued = sum(each.queued for each in machines.alpha.broker.stats.counters())
    return (
        queued == 0
        and outgoing["sent"] == count
        and incoming["received"] + outgoing["lost"] == count
        and outgoing["on_the_way"] == 0
    )


async def test_nothing_of_a_reliable_channel_is_lost_in_cuts(tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair(BACKPRESSURE, 5) as machines:
        cable = await machines.cable()
        _, beta = await connect(machines, reliable=True)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 600, 30_000, 0, sent),
        ):
            for part in (100, 300):
                await beta.until(lambda part=part: len(lines(out)) > part)
                await cable.cut()
                await beta.until(lambda: beta.peer("alpha")["state"] != "up")
                await cable.heal()
            await beta.until(lambda: len(lines(out)) == 600)
        assert lines(out) == [f"{n} 3750 int64 True frame" for n in range(600)]


async def test_a_killed_link_process_is_replaced_and_data_flows_again(tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair() as machines:
        alpha, beta = await connect(machines)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 80, 0.002, sent),
        ):
            await beta.until(lambda: len(lines(out)) > 20)
            await beta.kill()
            await alpha.until(lambda: alpha.peer("beta")["state"] == "absent")
            beta = machines.start_beta()
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 50)
            await alpha.kill()
            await beta.until(lambda: beta.peer("alpha")["state"] == "absent")
            machines.start_alpha()
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 50)


async def test_what_a_killed_link_process_takes_with_it_is_counted(tmp_path: Path) -> None:
    out = tmp_path / "b"
    async with pair() as machines:
        alpha, beta = await connect(machines)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 2000, 0.001, tmp_path / "a") as sender,
        ):
            for both in (False, True, True):
                arrived = len(lines(out))
                await beta.until(lambda arrived=arrived: len(lines(out)) > arrived + 50)
                await alpha.kill()
                if both:
                    await beta.kill()
                    beta = machines.start_beta()
                alpha = machines.start_alpha()
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 50)
            sender.process.kill()
            await sender.ended()
            await beta.until(lambda: all_counted(machines))
            await beta.until(lambda: len(lines(out)) == taken(machines.beta, "b"))
        numbers = [int(line.split()[0]) for line in lines(out)]
        assert numbers == sorted(set(numbers))
        in_queues = dropped(machines.alpha, LINK) + dropped(machines.beta, "b")
        assert numbers[-1] + 1 - len(numbers) == lost(machines.beta, "b") + in_queues


def all_counted(machines: Pair) -> bool:
    """Whether the edge to `b` counts all messages that the link of alpha has taken."""
    queued = sum(each.queued for each in machines.alpha.broker.stats.counters())
    (sent,) = [each.sent for each in machines.beta.broker.stats.counters() if each.node == "b"]
    return queued == 0 and sent + lost(machines.beta, "b") == taken(machines.alpha, LINK)


async def test_a_stopped_link_process_is_noticed_within_the_lease(tmp_path: Path) -> None:
    async with pair() as machines:
        alpha, beta = await connect(machines)
        beta.process.send_signal(signal.SIGSTOP)
        await alpha.until(lambda: alpha.peer("beta")["state"] == "absent")
        beta.process.send_signal(signal.SIGCONT)
        await alpha.until(lambda: alpha.peer("beta")["state"] == "up")


async def test_the_end_of_the_source_comes_after_its_messages(tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair() as machines:
        _, beta = await connect(machines)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 30, 80, 0, sent) as sender,
        ):
            assert await sender.ended() == 0
            machines.alpha.broker.notifications.node_failed(LINK, "a", "exited with 3", ["x"])
            machines.alpha.broker.notifications.close_input(LINK, "x")
            await beta.until(lambda: len(beta.events()) == 2)
            assert sent_to(machines.beta, "b") == 30, "an event has overtaken messages"
            await beta.until(lambda: len(lines(out)) == 30)
        assert beta.events() == [("a/out", "failed"), ("a/out", "closed")]
        assert [each.get("text") for each in beta.reports if each["kind"] == "event"] == [
            "exited with 3",
            "",
        ]


async def test_a_source_that_sends_again_after_its_end_is_reported_whatever_is_killed() -> None:
    async with pair() as machines:
        alpha, beta = await connect(machines)
        notifications = machines.alpha.broker.notifications
        notifications.close_input(LINK, "x")
        await beta.until(lambda: beta.events() == [("a/out", "closed")])
        notifications.node_restarted(LINK, "a", had_ended=True)
        await beta.until(lambda: beta.events()[1:] == [("a/out", "restarted")])
        notifications.close_input(LINK, "x")
        await beta.until(lambda: beta.events()[2:] == [("a/out", "closed")])
        await alpha.kill()
        await beta.kill()
        machines.alpha.broker.restarting("a", 2)
        notifications.node_restarted(LINK, "a", had_ended=True)  # no process hears of it
        alpha, beta = await connect(machines)
        await beta.until(lambda: beta.events() == [("a/out", "restarted")])
        await alpha.kill()
        notifications.close_input(LINK, "x")
        machines.start_alpha()
        await beta.until(lambda: beta.events()[1:] == [("a/out", "closed")])


async def test_an_end_that_waits_for_queued_messages_is_void_once_the_source_sends_again(
    tmp_path: Path,
) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair(BACKPRESSURE, 50) as machines:
        alpha = machines.start_alpha(reliable=True)
        await alpha.until(alpha.status)
        async with Program(machines.alpha, "a", SENDER, 10, 80, 0, sent) as sender:
            assert await sender.ended() == 0
        notifications = machines.alpha.broker.notifications
        alpha.process.send_signal(signal.SIGSTOP)  # until it has all of them to read at once
        notifications.node_failed(LINK, "a", "exited with 3", ["x"])
        notifications.close_input(LINK, "x")
        notifications.node_restarted(LINK, "a")
        alpha.process.send_signal(signal.SIGCONT)
        beta = machines.start_beta()
        async with Connected(machines.beta, "b", RECEIVER, out):
            await beta.until(lambda: len(lines(out)) == 10)
        notifications.close_input(LINK, "x")
        await beta.until(lambda: ("a/out", "closed") in beta.events())
        assert beta.events() == [("a/out", "restarted"), ("a/out", "closed")]
        assert alpha.process.poll() is None


async def test_a_stopped_receiver_of_one_channel_does_not_slow_another(tmp_path: Path) -> None:
    out, other = tmp_path / "b", tmp_path / "c"
    first = dataflow(
        node("a"), node("d"), with_policy(node(LINK, x="a/out", y="d/out"), BACKPRESSURE, 3)
    )
    second = dataflow(
        replace(node(LINK), outputs=("out", "also")),
        with_policy(node("b", x=f"{LINK}/out"), BACKPRESSURE, 3),
        with_policy(node("c", y=f"{LINK}/also"), BACKPRESSURE, 3),
    )
    channels = [("a/out", "x", "out"), ("d/out", "y", "also")]
    async with machines_of(first, second) as machines:
        alpha = machines.start_alpha(
            outgoing=[
                {"name": name, "machine": "beta", "input": each, "reliable": True}
                for name, each, _ in channels
            ]
        )
        beta = machines.start_beta(
            incoming=[
                {"name": name, "machine": "alpha", "output": output} for name, _, output in channels
            ]
        )
        async with (
            Connected(machines.beta, "b", RECEIVER, out) as receiver,
            Connected(machines.beta, "c", RECEIVER, other),
            Program(machines.alpha, "a", SENDER, ENDLESS, 200_000, 0, tmp_path / "a"),
            Program(machines.alpha, "d", SENDER, ENDLESS, 200_000, 0, tmp_path / "d"),
        ):
            await beta.until(lambda: len(lines(out)) > 20 and len(lines(other)) > 20)
            receiver.process.send_signal(signal.SIGSTOP)
            seen, since = -1, time.monotonic()

            def stands() -> bool:
                nonlocal seen, since
                now = status_of(alpha, "a/out")["sent"]
                if now != seen:
                    seen, since = now, time.monotonic()
                return time.monotonic() - since > 3

            await alpha.until(stands)
            assert status_of(alpha, "a/out")["on_the_way"] > 0
            before = len(lines(other))
            await beta.until(lambda: len(lines(other)) > before + 500)
            assert status_of(alpha, "a/out")["lost"] == 0


def status_of(link: Link, name: str) -> dict[str, Any]:
    """Return the last counters of an outgoing channel."""
    (found,) = [each for each in link.status()["outgoing"] if each["name"] == name]
    return dict(found)


HOSTILE = """
import os, random, sys, time, zenoh
from dorad.link import frames
from dorad.link.frames import Ack, Content, Event, EventKind, Numbering, Opening, Start
config = zenoh.Config()
for key, value in {
    "mode": '"peer"',
    "listen/endpoints": "[]",
    "connect/endpoints": f'["{sys.argv[1]}"]',
    "scouting/multicast/enabled": "false",
}.items():
    config.insert_json5(key, value)
chance = random.Random(int(sys.argv[2]))
numbers = lambda count: [chance.randrange(1 << 62) for _ in range(count)]
with zenoh.open(config) as session:
    time.sleep(1)
    for number in range(int(sys.argv[3])):
        opening = Opening(chance.choice((0, 0, 9)), chance.randrange(8), chance.randrange(3))
        content = Content(1, chance.randrange(256), chance.randrange(1 << 40), 0, 40, 0)
        data = chance.choice([
            os.urandom(chance.randrange(100)),
            frames.message_head(opening, *numbers(2), content, b"{}") + bytes(40),
            frames.part_head(opening, 1, chance.randrange(1 << 50)) + bytes(9),
            frames.encode_event(Event(opening, 5, EventKind.CLOSED, "x")),
            frames.encode_ack(Ack(opening, chance.randrange(1 << 62), 0)),
            frames.encode_start(Start(opening, 3, Numbering(*numbers(2)))),
            b'{"version": 1, "heard": [1, 2]}',
        ])
        sender = chance.choice(("alpha", "alpha", "stranger"))
        kind = chance.choice(("data", "ack", "hello", "what"))
        session.put(f"dorad/test-flow/to/beta/{sender}/{kind}", data)
        if number % 100 == 0:
            session.put("dorad/test-flow/alive/alpha/zz", b"")
            time.sleep(0.001)
"""


async def test_nothing_that_a_peer_sends_ends_the_process(tmp_path: Path) -> None:
    out = tmp_path / "b"
    async with pair() as machines:
        beta = machines.start_beta(connect=[], listen=[machines.address])
        await beta.until(beta.status)
        async with Program(machines.alpha, "a", HOSTILE, machines.address, 1, 5_000) as hostile:
            assert await hostile.ended() == 0
        assert beta.process.poll() is None, beta.errors.decode()
        machines.start_alpha(listen=[], connect=[machines.address])
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 5, 80, 0, tmp_path / "a"),
        ):
            await beta.until(lambda: len(lines(out)) == 5)
        assert lines(out) == [f"{n} 10 int64 True frame" for n in range(5)]


async def test_the_process_ends_by_itself_when_all_its_inputs_have_and_everything_was_sent(
    tmp_path: Path,
) -> None:
    out = tmp_path / "b"
    async with pair(BACKPRESSURE, 3) as machines:
        alpha, beta = await connect(machines, reliable=True)
        async with Connected(machines.beta, "b", RECEIVER, out) as receiver:
            await beta.until(lambda: machines.beta.broker.stats.vitals("b").connected)
            receiver.process.send_signal(signal.SIGSTOP)
            async with Program(machines.alpha, "a", SENDER, 20, 80, 0, tmp_path / "a") as sender:
                assert await sender.ended() == 0
            machines.alpha.broker.notifications.close_input(LINK, "x")
            machines.alpha.broker.notifications.stop(LINK, "ALL_INPUTS_CLOSED")
            await alpha.until(lambda: alpha.status()["outgoing"][0]["on_the_way"] > 0)
            assert alpha.process.poll() is None
            receiver.process.send_signal(signal.SIGCONT)
            await alpha.until(lambda: alpha.process.poll() == 0)
            await beta.until(lambda: len(lines(out)) == 20)
            await beta.until(lambda: beta.events() == [("a/out", "closed")])


async def test_a_source_that_ends_after_the_other_machine_has_left_keeps_no_link_waiting() -> None:
    async with pair() as machines:
        alpha, beta = await connect(machines)
        assert await beta.stop() == 0
        await alpha.until(lambda: "has ended on beta" in alpha.peer("beta")["reason"])
        begun = time.monotonic()
        machines.alpha.broker.notifications.close_input(LINK, "x")
        machines.alpha.broker.notifications.stop(LINK, "ALL_INPUTS_CLOSED")
        await alpha.until(lambda: alpha.process.poll() == 0)
        assert time.monotonic() - begun < DRAIN_S


async def test_a_channel_without_a_receiver_is_reported() -> None:
    async with pair() as machines:
        alpha = machines.start_alpha()
        machines.start_beta(channel={"name": "a/other"})
        why = "beta does not receive a/out"
        await alpha.until(lambda: alpha.peer("beta").get("reason") == why)
        assert alpha.peer("beta")["state"] == "up"


async def test_both_ends_prove_who_they_are(tmp_path: Path) -> None:
    out, sent = tmp_path / "b", tmp_path / "a"
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 5, 3 << 20, 0, sent),
        ):
            await beta.until(lambda: len(lines(out)) == 5)


async def test_a_certificate_of_another_authority_is_not_let_in(tmp_path: Path) -> None:
    fleet, other = Authority(tmp_path / "fleet"), Authority(tmp_path / "other")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        foreign = machines.start_beta(tls=other.issue("beta") | {"ca": fleet.issue("alpha")["ca"]})
        await foreign.until(lambda: foreign.peer("alpha").get("state") == "absent")
        good = machines.links.pop()
        await good.kill()
        await alpha.until(alpha.status)
        assert alpha.peer("beta")["state"] == "absent"
        machines.start_beta(tls=fleet.issue("beta"))
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")


async def test_the_session_is_opened_again_if_a_machine_that_is_there_does_not_answer() -> None:
    """So it is when Zenoh lets messages pass in one direction only."""
    async with pair() as machines:
        alpha = machines.start_alpha()
        beta = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.link.silent", machines.address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert beta.stdin is not None
        assert beta.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            found = [(await beta.stdout.readline()).decode().split() for _ in range(3)]
            beta.stdin.close()
            await beta.wait()
        keys, kinds = zip(*found, strict=True)
        assert len(set(keys)) == 1, "it is the same process"
        assert kinds == ("SampleKind.PUT", "SampleKind.DELETE", "SampleKind.PUT")
        await alpha.until(lambda: b"no answer from beta" in alpha.errors)


async def test_an_address_in_use_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        first = machines.start_alpha(tls=fleet.issue("alpha"))
        await first.until(first.status)
        outgoing = [{"machine": "alpha", "name": "a/out", "input": "a/out"}]
        config = {"dataflow": "x", "machine": "y", "outgoing": outgoing, "tls": fleet.issue("y")}
        second = Link(machines.beta, config | first_address(machines))
        machines.links.append(second)
        await second.until(lambda: second.process.poll() is not None)
        assert second.process.returncode == 1
        await second.until(lambda: b"the link cannot be opened" in second.errors)
        # The daemon learns it, too.
        await second.until(lambda: second.peer("alpha"))
        assert second.peer("alpha")["reason"].startswith("the link cannot be opened")
        assert second.peer("alpha")["reason"].endswith("Address already in use")


def first_address(machines: Pair) -> dict[str, list[str]]:
    return {"listen": [machines.address]}


async def test_a_wrong_configuration_ends_the_process_with_the_reason() -> None:
    async with pair() as machines:
        link = Link(machines.alpha, {"dataflow": "x", "machine": "not a/key"})
        machines.links.append(link)
        await link.until(lambda: link.process.poll() is not None and link.errors)
        assert link.process.returncode == 1
        assert b"the configuration of the link is not valid" in link.errors


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.1"])
async def test_links_come_up_over_ipv6_as_over_ipv4(host: str, tmp_path: Path) -> None:
    """Robots listen at all their addresses."""
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        port = machines.address.rpartition(":")[2]
        anywhere = "[::]" if host == "[::1]" else "0.0.0.0"
        own = f"IP:{host.strip('[]')}"
        alpha = machines.start_alpha(
            tls=fleet.issue("alpha", own), listen=[f"tls/{anywhere}:{port}"]
        )
        beta = machines.start_beta(tls=fleet.issue("beta", own), connect=[f"tls/{host}:{port}"])
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 20, 100_000, 0.002, tmp_path / "a"),
        ):
            await beta.until(lambda: len(lines(out)) == 20)


async def test_an_address_that_zenoh_cannot_use_is_refused_with_words(tmp_path: Path) -> None:
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        beta = machines.start_beta(tls=fleet.issue("beta"), connect=["tls/[fe80::7%lo]:7447"])
        await beta.until(lambda: beta.process.poll() is not None)
        assert beta.process.returncode == 1
        await beta.until(lambda: "has a zone" in beta.peer("alpha").get("reason", ""))
