"""Events from outside the dataflow, merged with those of the inputs."""

import pytest

from dorad.node import externalinput
from dorad.node.externalinput import Backlog
from tests.harness.dataflow import Flow

SOURCE = """
import queue
import threading

from dora import Node
from dorad.node.externalinput import Backlog
from probe import report


class Source:
    '''Sends one value for each `go`.'''

    def __init__(self):
        self.backlog = Backlog(10)
        self.go = queue.SimpleQueue()

    def merge_into(self, wake):
        def send():
            while (value := self.go.get()) is not None:
                self.backlog.append(value, 8)
                wake()

        threading.Thread(target=send, daemon=True).start()
        return self.backlog


source = Source()
node = Node()
"""


@pytest.fixture
def flow(tmp_path):
    return Flow(tmp_path)


def test_each_value_wakes_a_node_that_sleeps(flow: Flow) -> None:
    flow.node(
        "node",
        SOURCE
        + """
node.merge_external_events(source)
for number in range(200):
    source.go.put(number)
    event = node.next()
    assert event == {"kind": "external", "type": "EXTERNAL", "value": number}, event
source.go.put(200)
while (event := node.try_recv()) is None:
    pass
report(event["value"])
report([node.is_empty(), node.drain(), node.next(timeout=0.01)["type"]])
""",
    )
    flow.run().expect(0)
    assert flow.reports("node") == [200, [True, [], "ERROR"]]


def test_a_task_that_waits_is_woken(flow: Flow) -> None:
    flow.node(
        "node",
        SOURCE
        + """
import asyncio

async def main():
    task = asyncio.ensure_future(node.recv_async())
    await asyncio.sleep(0.1)
    node.merge_external_events(source)
    for number in range(50):
        source.go.put(number)
        event = await task
        assert event["value"] == number, event
        task = asyncio.ensure_future(node.recv_async())
        await asyncio.sleep(0)
    report("done")
    task.cancel()

asyncio.run(main())
""",
    )
    flow.run().expect(0)
    assert flow.reports("node") == ["done"]


def test_what_is_queued_at_a_stop_still_comes(flow: Flow) -> None:
    flow.node(
        "send",
        """
import pyarrow as pa
from dora import Node

node = Node()
for number in range(5):
    node.send_output("number", pa.array([number]))
""",
        outputs=["number"],
    )
    flow.node(
        "node",
        SOURCE
        + """
import time

node.merge_external_events(source)
for number in range(5):
    source.go.put(number)
while len(source.backlog) < 5:
    time.sleep(0.01)
report([event["type"] for event in node])
""",
        inputs={"number": {"source": "send/number", "queue_size": 10}},
    )
    flow.run().expect(0)
    (kinds,) = flow.reports("node")
    assert sorted(kinds) == ["EXTERNAL"] * 5 + ["INPUT"] * 5 + ["INPUT_CLOSED", "STOP"]


def test_only_a_subscription_can_be_merged(flow: Flow) -> None:
    flow.node(
        "node",
        SOURCE
        + """
try:
    node.merge_external_events(None)
except TypeError as error:
    report(str(error))
""",
    )
    flow.run().expect(0)
    assert flow.reports("node") == ["a Ros2Subscription can be merged, not NoneType"]


def test_the_oldest_values_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog(3)
    assert [backlog.append(each, 1) for each in range(5)] == [0, 0, 0, 1, 1]
    assert [backlog.popleft() for _ in range(4)] == [2, 3, 4, None]
    monkeypatch.setattr(externalinput, "MAX_BYTES", 10)
    assert [backlog.append(each, size) for each, size in enumerate((4, 4, 4, 100))] == [0, 0, 1, 2]
    assert (len(backlog), backlog.popleft(), len(backlog)) == (1, 3, 0)
