"""A new broker replaces a previous one, and nodes keep running."""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dorad.daemon.broker.broker import Broker
from dorad.daemon.broker.restore import Kept
from dorad.daemon.broker.snapshot import BrokerSnapshot
from dorad.dataflow.model import Dataflow, Input, LogSource, NodeOutput, QueuePolicy
from dorad.launch.host import NoStore
from dorad.node.protocol import OLDEST, VERSION, close_all, receive_any
from dorad.node.welcome import say_hello
from tests.daemon.broker.test_topology import COUNTER, WRITER, lines
from tests.daemon.clients import EventRecorder, Program, Stage, four_nodes
from tests.daemon.fakes import FakeChanges
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

pytestmark = pytest.mark.long


class DescriptorStore:
    """Keeps duplicates of descriptors, as the holder of a daemon does."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[int, ...]] = {}
        self.on_drop: Callable[[str], None] = lambda _: None

    def store(self, name: str, fds: Sequence[int]) -> None:
        self.drop(name)
        self.kept[name] = tuple(os.dup(fd) for fd in fds)

    def drop(self, name: str) -> None:
        if name in self.kept:
            self.on_drop(name)
        for fd in self.kept.pop(name, ()):
            os.close(fd)

    def copies(self) -> dict[str, tuple[int, ...]]:
        """Return the descriptors that a new daemon gets."""
        return {name: tuple(os.dup(fd) for fd in fds) for name, fds in self.kept.items()}

    def names(self, part: str) -> list[str]:
        return sorted(name for name in self.kept if name.startswith(f"test/{part}"))


def as_stored(snapshot: BrokerSnapshot) -> Any:
    """Return a snapshot as read from the state database."""
    return msgspec.json.decode(msgspec.json.encode(snapshot))


class BrokerSeries(Stage):
    """Brokers that replace each other."""

    def __init__(self, flow: Dataflow, path: Path) -> None:
        self.flow = flow
        self.path = path
        self.store = DescriptorStore()

    def make(self) -> Broker:
        events = EventRecorder()
        self.events = events.events
        self.changes = FakeChanges()
        self.broker = Broker(
            self.flow, "test", self.path, events, store=self.store, changes=self.changes
        )
        return self.broker

    def sent_to(self, name: str) -> int:
        """Return how many packets the process of a node was sent, as its mailbox says."""
        return self.broker._state.mailboxes[name].mail

    async def replace_broker(self, snapshot: BrokerSnapshot | None = None) -> Broker:
        """Kill this broker and open another one."""
        snapshot = self.broker.snapshot() if snapshot is None else snapshot
        kept = Kept(self.store.copies(), as_stored(snapshot))
        await self.kill_broker()
        broker = self.make()
        await broker.open(kept)
        assert not kept.descriptors
        return broker

    async def kill_broker(self) -> None:
        """End the broker as a killed daemon does; stored descriptors stay."""
        state, handovers = self.broker._state, self.broker.handovers
        state.store = NoStore()
        pending = [each.pending for each in handovers._open.values() if each.pending is not None]
        connections = [*state.connections.values(), *pending]
        state.connections.clear()
        handovers._open.clear()
        for connection in connections:
            connection.close("its daemon has died")
        name = self.path.with_suffix(".kept")
        name.hardlink_to(self.path)
        await self.broker.close()
        name.rename(self.path)


@asynccontextmanager
async def broker_series(flow: Dataflow) -> AsyncIterator[BrokerSeries]:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder:
        on = BrokerSeries(flow, Path(folder) / "broker.sock")
        await on.make().open()
        on.broker.notifications.open_barrier()
        try:
            yield on
        finally:
            await on.broker.close()
            assert not on.store.kept


def sequence(path: Path) -> list[int]:
    return [int(line.split()[1]) for line in lines(path, "x")]


@pytest.mark.parametrize("stored", [False, True])
async def test_a_killed_disconnect_is_done_or_not_done(tmp_path: Path, *, stored: bool) -> None:
    """Killed before it was stored, a daemon left an input that its node did not read."""
    out = tmp_path / "b.txt"
    entry = Input("x", NodeOutput("a", "out"), 1000)
    flow = dataflow(node("a"), replace(node("b"), inputs=(entry,)))
    async with broker_series(flow) as on, Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
        await until(lambda: len(sequence(out)) > 10)
        before = on.broker.snapshot()
        waiting = on.changes.waiting = list[Callable[[], None]]()
        on.broker.topology.remove_edge("b", "x")
        assert waiting, "the node gets packets although nothing is stored"
        if stored:
            on.flow = dataflow(node("a"), node("b"))
            await on.replace_broker()
            await until(lambda: lines(out, "INPUT_CLOSED"))
            assert on.broker.stats.counters() == []
        else:
            await on.replace_broker(before)
            mark = len(sequence(out))
            await until(lambda: len(sequence(out)) > mark + 10)
            assert lines(out, "INPUT_CLOSED") == []


async def test_data_and_counters_continue(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    flow = dataflow(
        node("a"), replace(node("b"), inputs=(Input("x", NodeOutput("a", "out"), 1000),))
    )
    async with broker_series(flow) as on, Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
        for _ in range(3):
            goal = len(sequence(out)) + 50
            await until(lambda g=goal: len(sequence(out)) > g)
            before = on.broker.stats.counters()[0]
            broker = await on.replace_broker()
            after = broker.stats.counters()[0]
            assert after.sent >= before.sent
            assert after.dropped == 0
            assert broker.stats.vitals("a").connected
            assert broker.stats.vitals("b").connected
        found = sequence(out)
        assert found == list(range(found[0], found[0] + len(found)))
        on.broker.notifications.close_input("b", "x")
        on.broker.notifications.stop("b", "MANUAL")
        await until(lambda: ("disconnected", "b") in on.events)


async def test_earlier_samples_stay_readable_and_are_returned(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    async with broker_series(dataflow(node("a"), node("b", x="a/out"))) as on:
        async with Program(on, "b", WRITER, out):
            async with Program(on, "a", COUNTER):
                await until(lambda: on.received("b") > 20)
                assert on.store.names("segment")
                await on.replace_broker()
                async with Program(on, "c", WRITER, tmp_path / "c"):
                    pass
                seen = on.received("b")
                await until(lambda: on.received("b") > seen + 20)
            on.broker.released("a")
            await until(lambda: not on.store.names("segment"))
            async with Program(on, "a", COUNTER):
                seen = on.received("b")
                await until(lambda: on.received("b") > seen + 20)


async def test_numbers_of_segments_are_never_used_again() -> None:
    async with broker_series(dataflow(node("a"), node("b", x="a/out"))) as on:
        numbers = []
        async with on.attached("a") as client:
            snapshot = on.broker.snapshot()
            for ask in range(3):
                client.send_packet("grow", size=4096, ask=ask)
                answer = await client.packet_of("grown")
                assert answer["ask"] == ask
                numbers.append(answer["segment"])
                client.send_packet("retire", segment=answer["segment"])
            client.send_packet("ready")
            await client.packet_of("start")
            await on.replace_broker(snapshot)
            assert (await client.packet_of("adopted")) == {"t": "adopted"}
            client.send_packet("grow", size=4096)
            numbers.append((await client.packet_of("grown"))["segment"])
        assert len(set(numbers)) == 4


async def test_a_node_is_sent_the_current_facts_again() -> None:
    async with broker_series(four_nodes()) as on:
        async with on.attached("b") as client:
            on.broker.notifications.close_input("b", "x")
            on.broker.notifications.node_failed("b", "a", "it broke", ["x"])
            on.broker.notifications.stop("b", "ALL_INPUTS_CLOSED")
            await client.packet_of("stop")
            await on.replace_broker()
            output = []
            while not output or output[-1]["t"] != "start":
                output.append(await client.packet())
            kinds = [packet["t"] for packet in output]
            assert kinds == ["adopted", "closed", "failed", "stop", "start"]


async def test_questions_that_were_not_answered_are_not_answered_twice() -> None:
    """The node repeats its request; its other packets are processed."""
    async with broker_series(dataflow(node("a"), node("b", x="a/out"))) as on:
        async with on.attached("a") as client:
            snapshot = on.broker.snapshot()
            kept = Kept(on.store.copies(), as_stored(snapshot))
            await on.kill_broker()
            client.send_packet("grow", size=4096, ask=1)
            client.send_packet("done")
            await on.make().open(kept)
            await until(lambda: ("done", "a") in on.events)
            await client.packet_of("adopted")
            client.send_packet("grow", size=4096, ask=2)
            assert (await client.packet_of("grown"))["ask"] == 2


async def hello(path: Path) -> socket.socket:
    """Return the connection of a process that was welcomed as node `a`."""
    connection, welcome = await asyncio.to_thread(say_hello, path, "a", dynamic=False)
    close_all((welcome.bell, welcome.space))
    return connection


async def test_a_process_whose_welcome_was_never_sent_says_hello_again() -> None:
    """A daemon stores a connection first: killed then, it had answered nothing."""
    async with broker_series(dataflow(node("a"))) as on:
        connection = await hello(on.path)
        on.broker._state.mailboxes["a"].attach()  # as at that moment
        await on.replace_broker()
        with connection:
            while (packet := await asyncio.to_thread(receive_any, connection)) is not None:
                assert packet.kind != "adopted"
        (await hello(on.path)).close()
        await until(lambda: not on.broker._state.connections)


async def test_a_stop_of_the_process_before_does_not_reach_the_one_that_has_its_place() -> None:
    """A daemon was killed while a process handed its place over to another one."""
    async with broker_series(dataflow(node("a"))) as on:
        async with on.attached("a"):
            on.broker.notifications.stop("a", "MANUAL")
            kept = on.broker.snapshot()
            assert (await on.replace_broker(kept)).snapshot().conditions == kept.conditions
            kept.attached["a"] += 1
            assert (await on.replace_broker(kept)).snapshot().conditions == {}


def test_a_process_without_a_connection_has_lost_its_place() -> None:
    """A daemon was killed while a process handed its place over to another one."""
    snapshot = {"attached": {"a": 1, "b": 2}}
    kept = {"test/conn/a/1": (5,), "test/conn/b/3": (6,), "test/log/b/2": (7,)}
    assert Kept(kept, snapshot).attached() == {1}


async def test_a_parameter_that_a_snapshot_lacks_is_sent_to_its_node() -> None:
    async with broker_series(dataflow(node("a"))) as on:
        on.broker.params.replace("a", {"same": 1, "number": 1, "old": 1})
        async with on.attached("a") as client:
            broker = await on.replace_broker()
            broker.params.align("a", {"same": 1, "number": True})
            found = [await client.packet_of(kind) for kind in ("param_gone", "param")]
            assert found == [
                {"t": "param_gone", "key": "old"},
                {"t": "param", "key": "number", "value": True},
            ]
            assert broker.snapshot().params == {"a": {"same": 1, "number": True}}


async def test_a_silent_input_whose_silence_was_not_stored_is_not_silent_for_the_node() -> None:
    entries = tuple(Input(name, NodeOutput("a", "out"), input_timeout=1.0) for name in "xyz")
    flow = dataflow(node("a"), replace(node("b"), inputs=entries))
    async with broker_series(flow) as on:
        async with on.attached("b") as client:
            on.broker.notifications.input_broken("b", "x")
            on.broker.notifications.close_input("b", "y")
            before = on.broker.snapshot()
            on.broker.notifications.input_broken("b", "z")
            await on.replace_broker(before)
            await client.packet_of("adopted")
            found = [await client.packet() for _ in range(3)]
            assert [each for each in found if each["t"] == "recovered"] == [
                {"t": "recovered", "input": "z"}
            ]


async def test_a_node_that_ended_meanwhile_is_detected(tmp_path: Path) -> None:
    async with broker_series(dataflow(node("a"), node("b", x="a/out"))) as on:
        async with Program(on, "a", COUNTER), Program(on, "b", WRITER, tmp_path / "b") as b:
            await until(lambda: on.received("b") > 5)
            kept = Kept(on.store.copies(), as_stored(on.broker.snapshot()))
            await on.kill_broker()
            b.process.kill()
            await b.ended()
            await on.make().open(kept)
            await until(lambda: ("disconnected", "b") in on.events)
            assert on.store.names("conn/b") == []
            on.broker.released("b")
            async with Program(on, "b", WRITER, tmp_path / "b"):
                seen = on.received("b")
                await until(lambda: on.received("b") > seen + 5)


async def test_a_sender_that_waits_for_room_continues(tmp_path: Path) -> None:
    entry = Input("x", NodeOutput("a", "out"), 2, QueuePolicy.BACKPRESSURE)
    flow = dataflow(node("a"), replace(node("b"), inputs=(entry,)))
    out = tmp_path / "b.txt"
    async with (
        broker_series(flow) as on,
        Program(on, "a", COUNTER),
        Program(on, "b", WRITER, out) as b,
    ):
        await until(lambda: len(sequence(out)) > 5)
        os.kill(b.process.pid, 19)
        await until(lambda: on.broker.stats.counters()[0].queued == 2)
        await on.replace_broker()
        os.kill(b.process.pid, 18)
        goal = len(sequence(out)) + 50
        await until(lambda: len(sequence(out)) > goal)
        found = sequence(out)
        assert found == list(range(found[0], found[0] + len(found)))


async def test_observers_end_with_their_daemon_and_texts_continue(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    b = replace(node("b"), inputs=(Input("x", NodeOutput("a", "out")), Input("logs", LogSource())))
    async with broker_series(dataflow(node("a"), b)) as on:
        async with Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
            await until(lambda: on.received("b") > 5)
            on.broker.emitter.emit("b", "logs", "before " + "x" * 1000)
            await on.broker.observers.add(".echo", (Input("x", NodeOutput("a", "out")),))
            await on.broker.observers.add(".pub", outputs={"out": (("b", "x"),)})
            with on.client() as observer:
                observer.hello(".pub")
                await observer.packet_of("welcome")
                observer.send_packet("grow", size=4096)
                await observer.packet_of("grown")
                await on.replace_broker()
                await observer.ended()
            with pytest.raises(KeyError):
                on.broker.stats.vitals(".echo")
            on.broker.emitter.emit("b", "logs", "after " + "x" * 1000)
            await until(lambda: len(lines(out, "logs")) == 2)
            seen = on.received("b")
            await until(lambda: on.received("b") > seen + 20)
            await on.broker.observers.add(".pub", outputs={"out": (("b", "x"),)})
            on.broker.observers.remove(".pub")


async def test_added_and_removed_inputs_survive_the_daemon(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    flow = dataflow(node("a"), node("b", x="a/out"))
    other = dataflow(node("a"), node("b", y="a/out"))
    async with broker_series(flow) as on, Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
        await until(lambda: len(lines(out, "x")) > 5)
        on.broker.topology.remove_edge("b", "x")
        on.broker.topology.add_edge("b", other.node("b").inputs[0])
        on.flow = other
        on.broker.topology.update(other)
        await on.replace_broker()
        await until(lambda: len(lines(out, "y")) > 20)
        assert [edge.input for edge in on.broker.stats.counters()] == ["y"]
        found = [int(line.split()[1]) for line in lines(out, "y")]
        assert len(found) == len(set(found))


async def test_a_node_missing_in_the_snapshot_is_created() -> None:
    async with broker_series(dataflow(node("a"))) as on:
        snapshot = on.broker.snapshot()
        on.flow = dataflow(node("a"), node("b", x="a/out"))
        await on.replace_broker(snapshot)
        with on.client() as client:
            await client.attach("b")


async def test_a_snapshot_is_small_and_contains_no_observer() -> None:
    async with broker_series(four_nodes()) as on:
        await on.broker.observers.add(".g", (Input("x", NodeOutput("a", "out")),))
        text = msgspec.json.encode(on.broker.snapshot()).decode()
        assert ".g" not in text
        assert len(text) < 2000


async def test_the_version_that_a_node_speaks_outlives_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dorad.daemon.broker.sessions.VERSION", VERSION + 2)
    async with broker_series(four_nodes()) as on:
        with on.client() as client:
            client.hello("a", version=VERSION + 1, oldest=OLDEST)
            assert (await client.packet())["version"] == VERSION + 1
            assert on.broker.stats.protocol("a") == VERSION + 1
            assert on.broker.stats.protocol("b") is None
            await on.replace_broker()
            assert on.broker.stats.protocol("a") == VERSION + 1
            # A daemon before this one has stored no versions.
            await on.replace_broker(replace(on.broker.snapshot(), versions={}))
            assert on.broker.stats.protocol("a") == OLDEST


async def test_a_handover_continues_under_the_next_daemon(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    sent: list[int] = []
    flow = dataflow(
        node("a"), replace(node("b"), inputs=(Input("x", NodeOutput("a", "out"), 100),))
    )
    async with broker_series(flow) as on, Program(on, "a", COUNTER):
        async with Program(on, "b", WRITER, out) as old:
            await until(lambda: len(sequence(out)) > 5)
            on.store.on_drop = lambda name: sent.append(on.sent_to("b")) if "/b/" in name else None
            on.broker.handovers.begin("b", flow.node("b"), flow)
            async with Program(on, "b", WRITER, out):
                await until(lambda: ("waiting", "b") in on.events)
                await on.replace_broker()
                on.broker.notifications.stop("b", "MANUAL")
                assert await old.ended() == 0
                goal = len(sequence(out)) + 50
                await until(lambda: len(sequence(out)) > goal)
                found = sequence(out)
                assert found == list(range(found[0], found[0] + len(found)))
        # A daemon killed at one of these moments leaves no count of packets to another process.
        assert len(sent) > 1
        assert not any(sent)
