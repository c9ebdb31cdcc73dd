"""Several tasks and threads receive from one node: each event is served once, and none is lost."""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.node.attachment import Attachment
from dorad.shm import hoplog, hops, layout
from tests.harness.waiting import until
from tests.node.fakedaemon import DEADLINE_S, FakeDaemon, attached, daemon_of, in_thread, push
from tests.shm.edge import read_hops

QUEUE = 1 << 10


daemon = daemon_of({"in": QUEUE})


def number(event: Any) -> Any:
    """Return the number that a message carries, or the type of another event."""
    if event is None:
        return None
    if event["type"] != "INPUT":
        return event["type"]
    return int.from_bytes(bytes(event["value"].to_pylist()), "big")


def send(daemon: FakeDaemon, *numbers: int) -> None:
    outlet = daemon.outlet("in")
    for each in numbers:
        push(outlet, each.to_bytes(4, "big"))


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), DEADLINE_S)

    asyncio.run(bounded())


async def waiting(node: Attachment, count: int, timeout: float | None = None) -> list[Any]:
    """Return tasks that wait in `recv_async`, in this order."""
    tasks = [asyncio.ensure_future(node.receiver.recv_async(timeout)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def numbers(tasks: list[Any]) -> list[Any]:
    return [number(each) for each in await asyncio.gather(*tasks)]


def test_tasks_are_served_in_the_order_of_their_calls(daemon: FakeDaemon) -> None:
    async def work() -> None:
        tasks = await waiting(node, 5)
        send(daemon, 0, 1)
        assert await numbers(tasks[:2]) == [0, 1]
        send(daemon, 2, 3, 4)
        assert await numbers(tasks[2:]) == [2, 3, 4]

    with attached(daemon) as node:
        run(work)


def test_a_task_that_asks_again_waits_behind_the_others(daemon: FakeDaemon) -> None:
    served: list[str] = []

    async def serve(name: str) -> None:
        for _ in range(10):
            await node.receiver.recv_async(None)
            served.append(name)

    async def work() -> None:
        tasks = [asyncio.ensure_future(serve(name)) for name in "abc"]
        await asyncio.sleep(0.01)
        send(daemon, *range(30))
        await asyncio.gather(*tasks)

    with attached(daemon) as node:
        run(work)
    assert served == list("abc" * 10)


def test_calls_that_do_not_wait_take_what_is_queued_beside_a_waiting_task(
    daemon: FakeDaemon,
) -> None:
    async def work() -> None:
        (task,) = await waiting(node, 1)
        assert node.receiver.is_empty()
        send(daemon, 1, 2, 3, 4)
        assert not node.receiver.is_empty()
        assert number(node.receiver.try_recv()) == 1
        assert [number(each) for each in node.receiver.drain()] == [2, 3, 4]
        assert node.receiver.try_recv() is None
        assert not task.done()
        send(daemon, 5)
        assert number(await task) == 5

    with attached(daemon) as node:
        run(work)


def test_next_in_the_thread_of_the_loop_works_beside_waiting_tasks(daemon: FakeDaemon) -> None:
    async def work() -> None:
        tasks = await waiting(node, 2)
        assert number(node.receiver.next(0.01)) == "ERROR"
        send(daemon, 1)
        assert number(node.receiver.next(DEADLINE_S)) == 1
        send(daemon, 2, 3)
        assert await numbers(tasks) == [2, 3]

    with attached(daemon) as node:
        run(work)


def test_a_cancelled_task_loses_nothing_wherever_it_stands(daemon: FakeDaemon) -> None:
    async def work() -> None:
        for place in range(4):
            tasks = await waiting(node, 4)
            tasks[place].cancel()
            send(daemon, 1, 2, 3)
            rest = [each for each in tasks if each is not tasks[place]]
            assert await numbers(rest) == [1, 2, 3]
            await asyncio.wait(tasks)
            assert tasks[place].cancelled()
        assert node.receiver.try_recv() is None

    with attached(daemon) as node:
        run(work)


def test_a_task_that_is_cancelled_together_with_a_message_leaves_it(daemon: FakeDaemon) -> None:
    async def work() -> None:
        (task,) = await waiting(node, 1)
        send(daemon, 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert number(await node.receiver.recv_async(DEADLINE_S)) == 1

    with attached(daemon) as node:
        run(work)


def test_each_task_has_its_own_timeout(daemon: FakeDaemon) -> None:
    async def work() -> None:
        patient, hasty, none = (await waiting(node, 1)) + (await waiting(node, 2, 0.02))
        assert await numbers([hasty, none]) == ["ERROR", "ERROR"]
        assert not patient.done()
        send(daemon, 1)
        assert number(await patient) == 1

    with attached(daemon) as node:
        run(work)


def test_all_tasks_learn_of_the_end(daemon: FakeDaemon) -> None:
    async def work() -> None:
        tasks = await waiting(node, 4)
        daemon.send("stop", reason="MANUAL")
        assert await numbers(tasks) == ["STOP", None, None, None]

    with attached(daemon) as node:
        run(work)


def test_a_blocked_thread_and_tasks_of_two_loops_are_all_served(daemon: FakeDaemon) -> None:
    served: list[Any] = []

    def in_thread() -> None:
        for _ in range(20):
            served.append(number(node.receiver.next(DEADLINE_S)))

    async def tasks() -> None:
        async def one() -> None:
            for _ in range(10):
                served.append(number(await node.receiver.recv_async(DEADLINE_S)))

        await asyncio.gather(*(one() for _ in range(2)))

    with attached(daemon) as node:
        threads = [threading.Thread(target=in_thread) for _ in range(2)]
        threads += [threading.Thread(target=asyncio.run, args=(tasks(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for each in range(80):
            send(daemon, each)
            time.sleep(random.random() / 2000)
        for thread in threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
    assert sorted(served) == list(range(80))


def test_an_endless_wait_in_a_thread_ends_for_a_task_too(daemon: FakeDaemon) -> None:
    """The turn passes to a task when a thread that has it returns, without another message."""

    async def work() -> None:
        blocked = asyncio.get_running_loop().run_in_executor(None, node.receiver.next, None)
        await until(lambda: daemon.box.words[layout.BOX_ASLEEP])
        (task,) = await waiting(node, 1)
        send(daemon, 1, 2)
        assert sorted([number(await blocked), number(await task)]) == [1, 2]

    with attached(daemon) as node:
        run(work)


STEPS = st.lists(
    st.sampled_from(
        ["send", "burst", "task", "hasty", "cancel", "try", "drain", "next", "thread", "turn"]
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 1 << 16))
def test_every_message_is_served_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], seed: int
) -> None:
    daemon = FakeDaemon(tmp_path_factory.mktemp("node"), {"in": QUEUE})
    chance = random.Random(seed)
    served: list[Any] = []
    sent = 0

    async def take(timeout: float | None) -> None:
        served.append(number(await node.receiver.recv_async(timeout)))

    def block() -> None:
        served.append(number(node.receiver.next(0.002)))

    async def work() -> None:
        nonlocal sent
        tasks: list[asyncio.Future[None]] = []
        threads: list[asyncio.Future[None]] = []
        for step in steps:
            match step:
                case "send" | "burst":
                    count = 1 if step == "send" else 5
                    send(daemon, *range(sent, sent + count))
                    sent += count
                case "task":
                    tasks.append(asyncio.ensure_future(take(None)))
                case "hasty":
                    tasks.append(asyncio.ensure_future(take(0.001)))
                case "cancel" if tasks:
                    chance.choice(tasks).cancel()
                case "try":
                    served.append(number(node.receiver.try_recv()))
                case "drain":
                    served.extend(number(each) for each in node.receiver.drain())
                case "next":
                    block()
                case "thread":
                    loop = asyncio.get_running_loop()
                    threads.append(loop.run_in_executor(None, block))
                case _:
                    await asyncio.sleep(chance.choice([0, 0, 0.001]))
        await asyncio.gather(*threads)
        served.extend(number(each) for each in node.receiver.drain())
        await asyncio.sleep(0.01)  # tasks that have taken a message return it
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert node.receiver.try_recv() is None

    try:
        with attached(daemon) as node:
            run(work)
    finally:
        daemon.close()
    assert sorted(each for each in served if isinstance(each, int)) == list(range(sent))


@pytest.mark.skipif(hops.received is None, reason="hops are not recorded here")
def test_what_a_task_sends_has_the_message_of_that_task_as_parent(daemon: FakeDaemon) -> None:
    gates = [asyncio.Event() for _ in range(2)]

    async def serve(gate: asyncio.Event) -> None:
        event = await node.receiver.recv_async(DEADLINE_S)
        await gate.wait()
        node.sender.send("out", event["value"], {})
        assert await node.receiver.recv_async(0) is not None  # of the time

    async def work() -> None:
        tasks = [asyncio.ensure_future(serve(gate)) for gate in gates]
        await asyncio.sleep(0)
        send(daemon, 1, 2)
        for _ in range(100):
            await asyncio.sleep(0)
        kinds = [hop.kind for hop in read_hops(daemon.box.words, start)[0]]
        assert kinds == [layout.HOP_RECEIVE] * 2
        for gate, task in zip(gates, tasks, strict=True):
            gate.set()
            await task

    with attached(daemon) as node:
        daemon.introduce(daemon.other(8), blocking=False)
        start = hoplog.HopCursor()
        run(work)
        read, _ = read_hops(daemon.box.words, start)
        # A thread without tasks has none of theirs.
        with in_thread(lambda: node.sender.send("out", read[0].kind.to_bytes(), {})):
            pass
        last = read_hops(daemon.box.words, start)[0][-1]
    first, second = read[0].stamp, read[1].stamp
    assert [(hop.kind, hop.stamp, hop.parent_stamp) for hop in read[2:]] == [
        (layout.HOP_SEND, read[2].stamp, first),
        (layout.HOP_DONE, first, 0),
        (layout.HOP_SEND, read[4].stamp, second),
        (layout.HOP_DONE, second, 0),
    ]
    assert {hop.place for hop in read if hop.kind == layout.HOP_SEND} == {hops.output_key("out")}
    assert (last.kind, last.parent_stamp) == (layout.HOP_SEND, 0)
