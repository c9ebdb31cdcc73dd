"""Nodes that receive in a thread, in a coroutine, or by polling, while something else sends."""

from tests.harness.dataflow import Flow

ECHO = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("back", event["value"])
"""


def test_next_in_a_thread_lets_another_thread_send(flow: Flow) -> None:
    flow.node("echo", ECHO, inputs={"in": "both/out"}, outputs=["back"])
    flow.node(
        "both",
        """
        import threading
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        answered = threading.Event()
        seen = []

        def receive():
            for event in node:
                if event["type"] == "INPUT":
                    seen.append(event["value"][0].as_py())
                    answered.set()
                if len(seen) == 30:
                    return

        receiver = threading.Thread(target=receive)
        receiver.start()
        for number in range(30):
            answered.clear()
            node.send_output("out", pa.array([number]))
            if not answered.wait(5):
                report(f"no answer to {number}")
                break
        receiver.join(5)
        report(seen)
        """,
        inputs={"in": "echo/back"},
        outputs=["out"],
    )
    flow.run(stop_after=20).expect(0)
    assert flow.reports("both") == [list(range(30))]


def test_next_in_an_executor_does_not_block_the_event_loop(flow: Flow) -> None:
    flow.node(
        "async",
        """
        import asyncio
        from dora import Node
        from probe import report

        async def main():
            node = Node()
            loop = asyncio.get_running_loop()
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0.01)

            counter = asyncio.create_task(count())
            types = []
            while (event := await loop.run_in_executor(None, node.next)) is not None:
                types.append(event["type"])
                if len(types) == 3:
                    break
            event = await asyncio.to_thread(node.next, timeout=0.1)
            counter.cancel()
            report([types, event["type"], turns])

        asyncio.run(main())
        """,
        inputs={"tick": "dora/timer/millis/600"},
    )
    flow.run(stop_after=10).expect(0)
    [[types, timed_out, turns]] = flow.reports("async")
    assert types == ["INPUT"] * 3
    assert timed_out == "ERROR"
    assert turns >= 10, "the loop stood still while a thread waited"


def test_polling_is_empty_in_a_coroutine_sees_data_and_the_stop(flow: Flow) -> None:
    flow.node(
        "poller",
        """
        import asyncio
        from dora import Node
        from probe import report

        async def main():
            node = Node()
            while True:
                if node.is_empty():
                    await asyncio.sleep(0.01)
                    continue
                event = node.next()
                report([event["type"], event["id"]])
                if event["type"] == "STOP":
                    return

        asyncio.run(main())
        """,
        inputs={"tick": "dora/timer/millis/200"},
    )
    outcome = flow.run(stop_after=8).expect(0)
    *ticks, last = flow.reports("poller")
    assert len(ticks) >= 5, outcome.output
    assert last == ["STOP", "MANUAL"]


def test_polling_is_empty_sees_that_all_inputs_closed(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        Node().send_output("out", pa.array([1]))
        """,
        outputs=["out"],
    )
    flow.node(
        "poller",
        """
        import time
        from dora import Node
        from probe import report

        node = Node()
        while True:
            if node.is_empty():
                time.sleep(0.01)
                continue
            event = node.next()
            report([event["type"], event["id"]])
            if event["type"] == "STOP":
                break
        """,
        inputs={"in": "source/out"},
    )
    flow.run().expect(0)
    assert flow.reports("poller") == [
        ["INPUT", "in"],
        ["INPUT_CLOSED", "in"],
        ["STOP", "ALL_INPUTS_CLOSED"],
    ]


def test_recv_async_gives_events_timeouts_and_none_at_the_end(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        node.send_output("out", pa.array([1]))
        node.next(timeout=5)  # until the sink has seen its timeout
        """,
        inputs={"go": "sink/go"},
        outputs=["out"],
    )
    flow.node(
        "sink",
        """
        import asyncio
        import pyarrow as pa
        from dora import Node
        from probe import report

        async def main():
            node = Node()
            event = await node.recv_async()
            report([event["type"], event["value"].to_pylist()])
            event = await node.recv_async(timeout=0.2)
            report([event["type"], event["error"][:26]])
            node.send_output("go", pa.array([1]))
            while (event := await node.recv_async()) is not None:
                report([event["type"], event["id"]])
            report(await node.recv_async(timeout=0.1))

        asyncio.run(main())
        """,
        inputs={"in": "source/out"},
        outputs=["go"],
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("sink") == [
        ["INPUT", [1]],
        ["ERROR", "Timeout event stream error"],
        ["INPUT_CLOSED", "in"],
        ["STOP", "ALL_INPUTS_CLOSED"],
        None,
    ]


def test_recv_async_does_not_block_other_tasks(flow: Flow) -> None:
    flow.node(
        "async",
        """
        import asyncio
        from dora import Node
        from probe import report

        async def main():
            node = Node()
            await node.recv_async()
            waiting = asyncio.create_task(node.recv_async())
            turns = 0
            while not waiting.done():
                turns += 1
                await asyncio.sleep(0.01)
            report([waiting.result()["type"], turns])

        asyncio.run(main())
        """,
        inputs={"tick": "dora/timer/millis/500"},
    )
    flow.run(stop_after=10).expect(0)
    [[type_, turns]] = flow.reports("async")
    assert type_ == "INPUT"
    assert turns >= 5, "the loop stood still during recv_async"


def test_several_tasks_and_threads_receive_from_one_node(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        node.next(timeout=20)  # until the others wait
        for number in range(8):
            node.send_output("out", pa.array([number]))
        """,
        inputs={"go": "sink/go"},
        outputs=["out"],
    )
    flow.node(
        "sink",
        """
        import asyncio
        import pyarrow as pa
        from dora import Node
        from probe import report

        def value(event):
            return event["value"][0].as_py() if event["type"] == "INPUT" else event["type"]

        async def main():
            node = Node()
            waiting = asyncio.gather(*(node.recv_async() for _ in range(5)))
            blocked = [asyncio.to_thread(node.next) for _ in range(3)]
            asyncio.get_running_loop().call_later(0.2, node.send_output, "go", pa.array([1]))
            events = [*await asyncio.gather(*blocked), *await waiting]
            report(sorted(map(value, events)))

        asyncio.run(main())
        """,
        inputs={"in": "source/out"},
        outputs=["go"],
    )
    flow.run(stop_after=20).expect(0)
    assert flow.reports("sink") == [list(range(8))]
