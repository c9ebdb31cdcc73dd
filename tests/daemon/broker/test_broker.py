"""The broker's socket: no connection harms another one, and nothing is left behind."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dorad.daemon.broker import segments
from dorad.daemon.broker.broker import Broker
from dorad.daemon.broker.connection import MAX_BACKLOG
from dorad.dataflow.model import Input, NodeKind, NodeOutput, NodeSpec, QueuePolicy
from dorad.node.protocol import MAX_PACKET, VERSION
from dorad.shm import create
from tests.daemon.clients import Client, EventRecorder, Stage, four_nodes, pair, stage, start
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

HELLO = {"t": "hello", "node": "c", "dynamic": False, "pid": 1, "version": VERSION}


def hello(**changed: object) -> bytes:
    return json.dumps(HELLO | changed).encode()


def hello_with(text: str) -> bytes:
    """A hello whose version is this JSON text."""
    return hello(version="@").replace(b'"@"', text.encode())


NO_HELLO = {
    "garbage": bytes(range(256)),
    "bytes that are no UTF-8": b'{"t":"hello\xff"}',
    "a truncated packet": hello()[:-5],
    "an empty packet": b"",
    "a list": b'["hello"]',
    "an object without a kind": b"{}",
    "a kind that is no text": b'{"t":[]}',
    "a packet of another kind": b'{"t":"grow","size":4096}',
    "an unknown kind": b'{"t":"selfdestruct"}',
    "a hello without a node": b'{"t":"hello"}',
    "a node that is a number": hello(node=7),
    "a negative version": hello_with("-1"),
    "a version that is no integer": hello_with("true"),
    "an infinite version": hello_with("1e999"),
    "a number of 60,000 digits": hello_with("9" * 60_000),
    "60,000 brackets": b"[" * 60_000,
    "nested objects": b'{"t":' * 12_000,
    "a hello too large by one byte": hello(pad="x" * (MAX_PACKET + 1 - len(hello(pad="")))),
    "a packet of 150 kB": b"x" * 150_000,
}

NO_REQUEST = {
    "garbage": b"\x00\x01\x02",
    "a second hello": hello(),
    "an unknown kind": b'{"t":"selfdestruct"}',
    "a segment of no size": b'{"t":"grow"}',
    "an empty segment": b'{"t":"grow","size":0}',
    "a segment of a negative size": b'{"t":"grow","size":-4096}',
    "another's segment": b'{"t":"retire","segment":1}',
    "a segment that does not exist": b'{"t":"retire","segment":99999}',
}


@pytest.fixture
async def at_work() -> AsyncIterator[Stage]:
    """A broker whose nodes `a` and `b` exchange messages."""
    async with stage() as on, pair(on):
        yield on


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


async def test_an_invalid_hello_closes_its_connection() -> None:
    async with stage() as on:
        before = descriptors()
        for what, data in NO_HELLO.items():
            with on.client() as client:
                client.send(data)
                assert await client.ended() == [], what
            assert descriptors() == before, what


async def test_an_invalid_request_closes_its_connection() -> None:
    async with stage() as on:
        before = descriptors()
        async with on.attached("a") as other:
            other.send_packet("grow", size=4096)
            assert (await other.packet_of("grown"))["segment"] == 1
            for what, data in NO_REQUEST.items():
                async with on.attached("c") as client:
                    client.send(data)
                    output = {packet["t"] for packet in await client.ended()}
                    assert output <= {"edges", "segment", "refused"}, what
        await until(lambda: ("disconnected", "a") in on.events)
        on.broker.released("a")
        assert descriptors() == before


async def test_the_last_packets_of_a_node_that_leaves_unread_ones_are_handled() -> None:
    async with stage() as on:
        async with on.attached("c") as client:

            def unread() -> bool:
                try:
                    return bool(client.peek())
                except BlockingIOError:
                    return False

            client.send_packet("grow", size=4096)
            await until(unread)
            client.send_packet("note", text="last words")
        await until(lambda: ("disconnected", "c") in on.events)
        assert on.notes == [("c", "last words")]
        on.broker.released("c")


async def test_a_segment_of_any_size_is_answered(at_work: Stage) -> None:
    with at_work.client() as client:
        await client.attach("c")
        for size in (1 << 50, 1 << 60, 1 << 80):
            client.send_packet("grow", size=size)
            answer = await client.packet_of("full")
            assert answer["error"].startswith(f"/dev/shm is full: {size} bytes requested, ")


async def test_nodes_continue_whatever_others_send(at_work: Stage) -> None:
    for data in NO_HELLO.values():
        with at_work.client() as client:
            client.send(data)
            await client.ended()
    for data in NO_REQUEST.values():
        with at_work.client() as client:
            await client.attach("c")
            client.send(data)
            await client.ended()
    await at_work.makes_progress()


@pytest.mark.parametrize("count", [1, 3, 100])
async def test_descriptors_that_come_with_garbage_are_closed(count: int) -> None:
    async with stage() as on:
        before = descriptors()
        with on.client() as client:
            client.send(b"garbage", [0] * count)
            await client.ended()
        assert descriptors() == before


@pytest.mark.parametrize(
    ("node_id", "dynamic", "version", "why"),
    [
        ("nobody", False, VERSION, "has no node 'nobody'"),
        ("\ud800", False, VERSION, "has no node"),
        ("c", True, VERSION, "is started by its dataflow"),
        ("a", False, VERSION, "already attached, as process"),
        ("c", False, VERSION + 1, "version"),
    ],
)
async def test_a_wrong_hello_is_refused_with_the_reason(
    node_id: str, dynamic: bool, version: int, why: str
) -> None:
    async with stage() as on:
        with on.client() as first, on.client() as client:
            await first.attach("a")
            client.hello(node_id, dynamic=dynamic, version=version)
            (refusal,) = await client.ended()
            assert refusal["t"] == "refused"
            assert why in refusal["error"]


@pytest.mark.parametrize(("version", "more"), [(VERSION, {}), (VERSION + 3, {"oldest": VERSION})])
async def test_a_newer_node_that_speaks_the_daemons_version_is_welcomed_with_it(
    version: int, more: dict[str, int]
) -> None:
    async with stage() as on:
        with on.client() as client:
            client.hello("c", version=version, **more)
            packet = await client.packet()
            assert (packet["t"], packet["version"]) == ("welcome", VERSION)


async def test_versions_without_one_in_common_are_both_named() -> None:
    async with stage() as on:
        with on.client() as client:
            client.hello("c", version=VERSION + 3, oldest=VERSION + 1)
            (refusal,) = await client.ended()
            assert f"the node speaks {VERSION + 1} to {VERSION + 3}" in refusal["error"]


async def test_a_refused_hello_does_not_affect_the_attached_node() -> None:
    async with stage() as on:
        with on.client() as first, on.client() as second:
            await first.attach("d")
            second.hello("d", dynamic=True)
            await second.ended()
            on.broker.notifications.stop("d", "MANUAL")
            assert (await first.packet_of("stop"))["reason"] == "MANUAL"


async def test_a_silent_connection_is_closed_at_its_deadline() -> None:
    async with stage(hello_deadline=0.5) as on:
        with on.client() as silent, on.client() as node_client:
            await node_client.attach("c")
            assert await silent.ended() == []
            on.broker.notifications.stop("c", "MANUAL")
            assert await node_client.packet_of("stop")


async def test_clients_that_vanish_at_any_point_leave_nothing() -> None:
    async with stage() as on:
        before = descriptors()
        for number in range(60):
            with on.client() as client:
                if number % 3:
                    client.hello("c")
                if number % 3 == 2:
                    client.send_packet("ready")
            await until(lambda: descriptors() == before)
        with on.client() as client:
            await client.attach("c")


async def test_a_node_that_never_reads_is_disconnected_and_the_others_continue(
    at_work: Stage,
) -> None:
    with at_work.client() as deaf:
        await deaf.attach("c")
        sent = 0
        while ("disconnected", "c") not in at_work.events:
            at_work.broker.params.update("c", "number", sent)
            sent += 1
            assert sent < MAX_BACKLOG + 2000
            if sent % 100 == 0:
                await at_work.makes_progress()
        assert sent > MAX_BACKLOG
    await at_work.makes_progress()


async def test_a_node_that_reads_late_gets_everything_in_order() -> None:
    async with stage() as on:
        async with on.attached("c") as slow:
            count = MAX_BACKLOG // 2 + 300
            for number in range(count):
                on.broker.params.update("c", "number", number)
            for number in range(count):
                assert (await slow.packet_of("param"))["value"] == number


async def test_a_node_that_sends_without_end_does_not_delay_others() -> None:
    async with stage() as on:
        with on.client() as chatty, on.client() as other:
            await chatty.attach("a")
            talking = True

            def talk() -> None:
                while talking:
                    try:
                        chatty.send_packet("done")
                    except BlockingIOError:
                        continue

            thread = threading.Thread(target=talk)
            thread.start()
            try:
                await other.attach("c")
            finally:
                talking = False
                await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("connect", [True, False])
async def test_close_leaves_no_descriptor_and_no_socket(connect: bool) -> None:
    before = descriptors()
    async with stage() as on:
        path = on.path
        clients: list[Client] = []
        if connect:
            clients = [on.client() for _ in range(3)]
            await clients[0].attach("c")
            clients[1].hello("d", dynamic=True)
            clients[0].send_packet("grow", size=1 << 20)
            await clients[0].packet_of("grown")
        await on.broker.close()
        assert not path.exists()
        for client in clients:
            await client.ended()
            client.__exit__()
        assert descriptors() == before


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Shared memory is created only while this event is set."""
    gate = threading.Event()
    gate.set()
    make = create.create_pool

    def make_late(size: int) -> create.PoolMemory:
        assert gate.wait(10)
        return make(size)

    monkeypatch.setattr(segments.create, "create_pool", make_late)
    return gate


async def test_close_waits_for_memory_that_is_being_created(gate: threading.Event) -> None:
    before = descriptors()
    async with stage() as on:
        async with on.attached("a") as client:
            gate.clear()
            client.send_packet("grow", size=1 << 16)
            client.send_packet("ready")  # answered once the request before it is taken
            await client.packet_of("start")
            closing = asyncio.ensure_future(on.broker.close())
            await client.ended()
            gate.set()
            await closing
    assert descriptors() == before


async def test_memory_requested_by_a_dead_process_is_not_given_to_the_next_one(
    gate: threading.Event,
) -> None:
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        async with on.attached("a") as first:
            first.send_packet("grow", size=1 << 16)
            assert (await first.packet_of("grown"))["segment"] == 1
            gate.clear()
            first.send_packet("grow", size=1 << 16)
            first.send_packet("ready")  # answered once the request before it is taken
            await first.packet_of("start")
            on.broker.released("a")
        async with on.attached("a") as second:
            gate.set()
            second.send_packet("grow", size=1 << 17)
            assert (await second.packet_of("grown"))["segment"] == 2
            second.send_packet("ready")
            assert (await second.packet_of("start"))["epoch_ns"]


async def test_no_sender_waits_for_a_killed_receiver_and_the_next_process_continues() -> None:
    source = NodeOutput("a", "out")
    receiver = NodeSpec(
        "b",
        NodeKind.PATH,
        path="b.py",
        inputs=(Input("x", source, 2, QueuePolicy.BACKPRESSURE),),
    )
    async with stage(dataflow(node("a"), receiver)) as on:
        processes = [start(on.broker, "a"), start(on.broker, "b")]
        try:
            await on.makes_progress()
            processes[1].kill()
            await asyncio.to_thread(processes[1].wait)
            on.broker.released("b")
            (edge,) = on.broker.stats.counters()
            goal = edge.sent + 20
            await until(lambda: on.broker.stats.counters()[0].sent > goal)
            assert on.broker.stats.counters()[0].dropped > edge.dropped
            processes.append(start(on.broker, "b"))
            await on.makes_progress()
        finally:
            for process in processes:
                process.kill()
                await asyncio.to_thread(process.wait)


async def test_segments_of_a_dead_process_are_dropped_once_no_queued_message_lies_in_them() -> None:
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        before = descriptors()
        with on.client() as receiver, on.client() as sender:
            await receiver.attach("b")
            await sender.attach("a")
            sender.send_packet("grow", size=1 << 16)
            await sender.packet_of("grown")
            on.broker.released("a")
            assert (await receiver.packet_of("segment"))["segment"] == 1
            assert (await receiver.packet_of("retired"))["segment"] == 1
        await until(lambda: descriptors() == before)


async def test_conditions_reach_a_node_that_attaches_later() -> None:
    async with stage() as on:
        on.broker.notifications.close_input("c", "x")
        on.broker.notifications.stop("c", "ALL_INPUTS_CLOSED")
        async with on.attached("c") as client:
            assert (await client.packet_of("closed"))["input"] == "x"
            assert (await client.packet_of("stop"))["reason"] == "ALL_INPUTS_CLOSED"


async def test_a_node_that_was_disconnected_may_attach_again() -> None:
    async with stage() as on:
        for _ in range(3):
            async with on.attached("c") as client:
                client.send(b"garbage")
                await client.ended()
        assert on.events.count(("disconnected", "c")) == 3


async def test_a_failed_open_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    broker = Broker(four_nodes(), "test", tmp_path / "missing" / "x.sock", EventRecorder())
    with pytest.raises(OSError):
        await broker.open()
    assert descriptors() == before
