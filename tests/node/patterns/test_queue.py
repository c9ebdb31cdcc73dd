"""Queues of running nodes keep messages of calls and goals, with keys set by hand."""

import pytest

from tests.harness.dataflow import Flow
from tests.node.patterns.test_calls import HEAD

SINK = """
while not os.path.exists("sent"):
    time.sleep(0.01)
seen = []
for event in node:
    if event["type"] == "INPUT":
        seen.append(event["value"][0].as_py())
        if len(event["value"]) > 1:
            assert event["value"][-1].as_py() == seen[-1]
report(seen)
"""


@pytest.mark.parametrize("length", [1, 1000], ids=["inline", "in a sample"])
@pytest.mark.parametrize("key", ["request_id", "goal_id", "goal_status"])
def test_ordinary_messages_never_displace_messages_of_calls_and_goals(
    flow: Flow, key: str, length: int
) -> None:
    flow.node(
        "source",
        HEAD
        + f"""
for n in range(200):
    metadata = {{"{key}": "x"}} if n in (3, 50) else {{"other": 1}}
    node.send_output("out", pa.array([n] * {length}), metadata)
open("sent", "w").close()
""",
        outputs=["out"],
    ).node("sink", HEAD + SINK, inputs={"in": {"source": "source/out", "queue_size": 4}})
    outcome = flow.run().expect(0)
    assert flow.reports("sink") == [[3, 50, 198, 199]]
    assert "196 of 200 messages dropped on source/out -> sink/in" in outcome.output


def test_a_full_lane_drops_its_oldest_message_and_reports_it(flow: Flow) -> None:
    flow.node(
        "source",
        HEAD
        + """
for n in range(10):
    node.send_output("out", pa.array([n]), {"request_id": str(n)})
    node.send_output("out", pa.array([100 + n]))
open("sent", "w").close()
""",
        outputs=["out"],
    ).node("sink", HEAD + SINK, inputs={"in": {"source": "source/out", "queue_size": 3}})
    outcome = flow.run().expect(0)
    assert flow.reports("sink") == [[7, 8, 9]]
    (line,) = outcome.lines_about("sink", ["7 messages with a request_id or goal_id were dropped"])
    assert "ERROR" in line


def test_a_restarted_consumer_gets_the_queued_messages(flow: Flow) -> None:
    flow.node(
        "source",
        HEAD
        + """
for n in range(100):
    node.send_output("out", pa.array([n]), {"goal_id": "g"} if n == 0 else None)
open("sent", "w").close()
while not os.path.exists("died"):
    time.sleep(0.01)
for n in range(100, 200):
    node.send_output("out", pa.array([n]))
open("again", "w").close()
while not os.path.exists("back"):
    time.sleep(0.01)
""",
        outputs=["out"],
    ).node(
        "sink",
        HEAD
        + """
if not node.restart_count():
    open("died", "w").close()
    os._exit(1)
while not os.path.exists("again"):
    time.sleep(0.01)
open("back", "w").close()
report([event["value"][0].as_py() for event in node if event["type"] == "INPUT"])
""",
        inputs={"in": {"source": "source/out", "queue_size": 3}},
    )
    flow.nodes[-1] |= {"restart_policy": "on-failure", "restart_delay": 0.1}
    flow.run().expect(0)
    assert flow.reports("sink") == [[0, 198, 199]]


def test_backpressure_keeps_the_order_of_both_kinds(flow: Flow) -> None:
    flow.node(
        "source",
        HEAD
        + """
for n in range(300):
    node.send_output("out", pa.array([n]), {"request_id": "r"} if n % 3 else None)
""",
        outputs=["out"],
    ).node(
        "sink",
        HEAD + "report([e['value'][0].as_py() for e in node if e['type'] == 'INPUT'])",
        inputs={"in": {"source": "source/out", "queue_size": 2, "queue_policy": "backpressure"}},
    )
    flow.run().expect(0)
    assert flow.reports("sink") == [[*range(300)]]
