"""Receiving topics and sending on them through the control API, while nodes run."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from dorad.control.arrays import from_ipc
from dorad.control.errors import ControlError
from dorad.control.messages import TopicHeader
from dorad.daemon.subscription import publisher
from dorad.daemon.subscription import subscriptions as subscriptions_module
from dorad.daemon.subscription.frames import PREFIX, head
from dorad.daemon.subscription.subscriptions import MAX_SUBSCRIPTIONS, Subscriptions
from dorad.dataflow.model import NodeOutput
from dorad.launch.confine import CAP_DAC_READ_SEARCH
from dorad.launch.helper import LocalHelpers
from dorad.launch.model import Command
from dorad.launch.spawner import Process
from dorad.node.connection import DaemonConnection
from tests.daemon.clients import DEADLINE_S, Stage, pair, stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

OUT = NodeOutput("a", "out")
_MODULE = "dorad.daemon.subscription.process"


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage() as found:
        yield found


@pytest.fixture
async def subs(on: Stage) -> AsyncIterator[Subscriptions]:
    found = Subscriptions(on.broker)
    yield found
    await found.close()


def _received(subs: Subscriptions, *topics: NodeOutput, queue_size: int = 64) -> Any:
    return aclosing(subs.subscribe(topics or [OUT], queue_size=queue_size, stream=7))


async def _next(stream: Any) -> tuple[TopicHeader, pa.Array]:
    async with asyncio.timeout(DEADLINE_S):
        header, payload = await anext(stream)
    return header, from_ipc(payload)


def _processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            if child.status() != psutil.STATUS_ZOMBIE and _MODULE in child.cmdline():
                found.append(child)
    return found


_EXACT = """
from datetime import datetime, timezone
import pyarrow as pa
from dora import Node
node = Node()
given = {"at": datetime(2026, 1, 2, tzinfo=timezone.utc), "n": 1, "x": float("nan"), "l": ["y"]}
given["\\udc80"] = "\\ud800"  # no Unicode
while (event := node.next(timeout=0.01))["type"] != "STOP":
    node.send_output("out", pa.array([1.5, None]), given)
"""


@pytest.fixture
async def sender(on: Stage) -> AsyncIterator[None]:
    """Node `a` sends the same message continually."""
    environ = {**os.environ, "DORA_NODE_CONFIG": on.broker.node_config("a")}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _EXACT, env=environ)
    yield
    process.kill()
    await process.wait()


async def test_messages_come_with_topic_number_and_metadata(
    on: Stage, subs: Subscriptions, sender: None
) -> None:
    async with _received(subs) as stream:
        for number in (1, 2, 3):
            header, array = await _next(stream)
            assert (header.stream, header.topic, header.sequence) == (7, "a/out", number)
            assert array.equals(pa.array([1.5, None]))
            assert isinstance(header.metadata.pop("timestamp"), str)
            assert header.metadata == {
                "at": "2026-01-02T00:00:00+00:00",
                "n": 1,
                "x": None,
                "l": ["y"],
                "\\udc80": "\\ud800",
            }


async def test_a_slow_reader_loses_its_oldest_messages_and_delays_no_node(
    on: Stage, subs: Subscriptions
) -> None:
    async with pair(on), _received(subs, queue_size=4) as stream:
        header, _ = await _next(stream)
        dropped = header.dropped
        for _ in range(20):
            await on.makes_progress()
        while header.dropped <= dropped:
            header, _ = await _next(stream)
        await on.makes_progress()


_HEAVY = """
from dora import Node
node = Node()
while node.next(timeout=0.005)["type"] != "STOP":
    node.send_output("out", node.empty(4 << 20))
"""


async def test_a_slow_reader_does_not_make_the_sender_keep_its_messages() -> None:
    async with stage(dataflow(node("a"))) as on:
        environ = {**os.environ, "DORA_NODE_CONFIG": on.broker.node_config("a")}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _HEAVY, env=environ)
        try:
            async with _received(Subscriptions(on.broker)) as stream:
                await _next(stream)
                counters = partial(on.broker.stats.input_counters, ".observer-1", "a/out")
                await until(lambda: counters().sent >= 150)
                held = psutil.Process(process.pid).memory_info().shared
                header, _ = await _next(stream)
                while not header.dropped:
                    header, _ = await _next(stream)
            assert held < 150 << 20  # 64 messages would be 256
        finally:
            process.kill()
            await process.wait()


async def test_several_topics_over_one_subscription() -> None:
    flow = dataflow(node("a"), node("b", x="a/out"), node("c"))
    async with stage(flow) as on, pair(on):
        async with _received(Subscriptions(on.broker), OUT, NodeOutput("b", "out"), OUT) as stream:
            header, _ = await _next(stream)
            assert header.topic == "a/out"


async def test_the_process_and_the_observer_end_with_the_subscription(
    on: Stage, subs: Subscriptions
) -> None:
    async with pair(on):
        async with _received(subs) as stream:
            await _next(stream)
            assert len(_processes()) == 1
            assert on.broker.stats.input_counters(".observer-1", "a/out").sent > 0
        assert _processes() == []
        with pytest.raises(KeyError):
            on.broker.stats.input_counters(".observer-1", "a/out")
        await on.makes_progress()


async def test_a_cancelled_reader_leaves_nothing(on: Stage, subs: Subscriptions) -> None:
    async def read() -> None:
        async with _received(subs) as stream:
            async for _ in stream:
                pass

    reading = asyncio.create_task(read())
    await until(_processes)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert _processes() == []


def test_a_process_whose_daemon_was_killed_before_it_began_exits_silently() -> None:
    orphan = ["-m", _MODULE, "1", "echo", "10", ".observer-1", ""]
    done = subprocess.run(
        [sys.executable, *orphan], capture_output=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_a_subscription_ends_with_the_dataflow(subs: Subscriptions) -> None:
    async with stage() as on, pair(on):
        async with _received(Subscriptions(on.broker)) as stream:
            await _next(stream)
            async with asyncio.timeout(DEADLINE_S):
                ending = asyncio.create_task(_drain(stream))
                on.broker.observers.remove(".observer-1")
                await ending


async def test_all_subscriptions_end_when_the_dataflow_is_abandoned(
    on: Stage, subs: Subscriptions
) -> None:
    """Also one that still waits to join."""
    async with pair(on), _received(subs) as one:
        await _next(one)
        async with _received(subs) as other:
            joining = asyncio.create_task(_drain(other))
            await until(lambda: len(_processes()) == 2)
            async with asyncio.timeout(DEADLINE_S):
                await subs.close()
                await _drain(one)
                with suppress(ControlError):
                    await joining


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


async def test_a_subscription_process_that_dies_is_an_error(on: Stage, subs: Subscriptions) -> None:
    async with pair(on):
        async with _received(subs) as stream:
            await _next(stream)
            _processes()[0].kill()
            with pytest.raises(ControlError, match="the subscription process exited with -9"):
                async with asyncio.timeout(DEADLINE_S):
                    await _drain(stream)
        await on.makes_progress()


DEEP = b'{"kind":"ready","metadata":{"a":%b}}' % (b"[" * 2000 + b"]" * 2000)


class TakenOver(LocalHelpers):
    """Starts a program that writes other bytes in place of each helper."""

    def __init__(self, *written: bytes) -> None:
        super().__init__()
        self._written = b"".join(written)

    async def start_helper(
        self, command: Command, stdio: int, link: int, *, tag: str, network: bool = False
    ) -> Process:
        octal = "".join(f"\\{byte:03o}" for byte in self._written)
        program = Command(("/bin/sh", "-c", f"printf '{octal}'; read end"), Path("/"), {})
        return await super().start_helper(program, stdio, link, tag=tag, network=network)


@pytest.mark.parametrize(
    ("written", "code", "words"),
    [
        ([PREFIX.pack(2, 0), b"[]"], "internal", "invalid frame"),
        ([PREFIX.pack(2, 0), b"\xff\xfe"], "internal", "invalid frame"),
        ([PREFIX.pack(21, 0), b'{"kind":"m","topic":1'], "internal", "invalid frame"),
        ([head({"kind": "message", "topic": "\ud800"})], "internal", "invalid frame"),
        ([PREFIX.pack(len(DEEP), 0), DEEP], "internal", "invalid frame"),
        ([head({"kind": "message", "topic": "b/out"})], "internal", "sent 'b/out'"),
        ([PREFIX.pack(1 << 31, 0)], "too-large", "metadata has 2147483648 bytes"),
        ([head({"kind": "message", "topic": "a/out"}, 1 << 40)], "too-large", "a message of a/out"),
    ],
)
async def test_a_subscription_process_that_messages_took_over_ends_only_its_subscription(
    on: Stage, written: list[bytes], code: str, words: str
) -> None:
    helpers = TakenOver(head({"kind": "ready"}), *written)
    async with _received(Subscriptions(on.broker, helpers)) as stream:
        with pytest.raises(ControlError, match=words) as caught:
            await _next(stream)
    assert caught.value.code == code


async def test_the_number_of_subscriptions_is_limited(
    on: Stage, subs: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_SUBSCRIPTIONS > 1
    monkeypatch.setattr(subscriptions_module, "MAX_SUBSCRIPTIONS", 1)
    async with pair(on), _received(subs) as first:
        await _next(first)
        async with _received(subs) as second:
            with pytest.raises(ControlError, match="1 clients receive topics") as caught:
                await anext(second)
        assert caught.value.code == "busy"
        await _next(first)


def _status(process: psutil.Process) -> dict[str, str]:
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


async def test_a_process_has_no_privileges_and_none_of_the_daemon_s_variables(
    on: Stage, subs: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "hunter2")
    async with pair(on), _received(subs) as stream:
        await _next(stream)
        (process,) = _processes()
        status = _status(process)
        kept = ("CapInh", "CapPrm", "CapEff", "CapAmb")
        for kind in (*kept, "CapBnd") if os.getuid() == 0 else kept:
            assert int(status[kind], 16) in (0, 1 << CAP_DAC_READ_SEARCH)
        assert status["NoNewPrivs"] == "1"
        if os.getuid() == 0:
            assert status["Uid"].split() == ["65534"] * 4
            assert status["Gid"].split() == ["65534"] * 4
            assert status["Groups"].split() == []
        assert not {"SECRET_OF_THE_DAEMON", "DORA_NODE_CONFIG"} & process.environ().keys()


async def test_a_process_cannot_take_another_observer_s_place_with_the_connection_it_was_given(
    on: Stage,
) -> None:
    for observer in (".observer-1", ".observer-2"):
        await on.broker.observers.add(observer)
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    on.broker.observers.connect(".observer-1", ours, os.getpid())
    with theirs, pytest.raises(RuntimeError, match="closed the connection"):
        await asyncio.to_thread(DaemonConnection, theirs, ".observer-2", dynamic=False)


class TestPublish:
    async def test_subscribers_get_each_message(
        self, on: Stage, subs: Subscriptions, sender: None
    ) -> None:
        async with _received(subs) as stream:
            await _next(stream)
            data = [[1, 2], 3.5, "text", {"t": 25.5}, [{"a": 1}, {"a": None}], []]
            found = await subs.publish(OUT, [], data, {"who": "me"})
            assert (found.messages, found.subscribers) == (6, 1)
            got: list[Any] = []
            while len(got) < 6:
                header, array = await _next(stream)
                if header.metadata.get("who") == "me":
                    got.append(array.to_pylist())
        assert got == [[1, 2], [3.5], ["text"], [{"t": 25.5}], [{"a": 1}, {"a": None}], []]

    async def test_the_nodes_that_receive_the_output_get_it(
        self, on: Stage, subs: Subscriptions
    ) -> None:
        async with pair(on):
            await subs.publish(OUT, [("b", "x")], [[1]], {})
            await on.makes_progress()
            # the same process sends again
            process = _processes()[0].pid
            await subs.publish(OUT, [("b", "x")], [[1]] * 3, {})
            assert [child.pid for child in _processes()] == [process]

    async def test_another_topic_has_another_process(self, on: Stage, subs: Subscriptions) -> None:
        async with pair(on):
            await subs.publish(OUT, [("b", "x")], [[1]], {})
            process = _processes()[0].pid
            await subs.publish(NodeOutput("b", "out"), [("b", "x")], [[1]], {})
            assert [child.pid for child in _processes()] != [process]
            assert len(_processes()) == 1

    async def test_invalid_data_is_refused_and_nothing_sent(
        self, on: Stage, subs: Subscriptions
    ) -> None:
        async with pair(on):
            with pytest.raises(ControlError, match="the data does not fit the type") as caught:
                await subs.publish(OUT, [("b", "x")], [[1], [1, "x"]], {})
            assert caught.value.code == "refused"
            found = await subs.publish(OUT, [("b", "x")], [[1]], {})
            assert (found.messages, found.subscribers) == (1, 1)

    async def test_metadata_that_cannot_be_sent_is_refused(
        self, on: Stage, subs: Subscriptions
    ) -> None:
        async with pair(on):
            with pytest.raises(ControlError, match="does not fit into 64 bits"):
                await subs.publish(OUT, [("b", "x")], [[1]], {"n": 2**70})

    async def test_without_subscribers_nothing_is_started(
        self, on: Stage, subs: Subscriptions
    ) -> None:
        found = await subs.publish(OUT, [], [[1]], {})
        assert (found.messages, found.subscribers) == (1, 0)
        assert _processes() == []

    async def test_its_process_ends_when_nothing_more_is_published(
        self, on: Stage, subs: Subscriptions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(publisher, "IDLE_S", 0.05)
        async with pair(on):
            await subs.publish(OUT, [("b", "x")], [[1]], {})
            await until(lambda: not _processes())

    async def test_a_cancelled_request_leaves_no_process(
        self, on: Stage, subs: Subscriptions
    ) -> None:
        async with pair(on):
            asking = asyncio.create_task(subs.publish(OUT, [("b", "x")], [[1]], {}))
            await until(_processes)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert _processes() == []
            assert (await subs.publish(OUT, [("b", "x")], [[1]], {})).subscribers == 1
