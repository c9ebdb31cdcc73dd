"""Actions between a dataflow and real nodes of ROS 2, both ways."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.harness.dataflow import Flow

from .conftest import Peer, line_of

SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


def action(ros: Path, domain: int, role: str, **ports: Any) -> dict[str, Any]:
    block = {"action": "/fibonacci", "action_type": "test_msgs/Fibonacci", "role": role}
    return {"id": "bridge", "ros2": {"setup": str(ros), "domain_id": domain, **block}, **ports}


SERVE = """
    import os

    import pyarrow as pa
    from dora import Node

    node = Node()

    @node.serve("goal_request", "goal_response")
    def decide(event):
        order = event["value"].field("order")[0].as_py()
        if order == -2:
            raise ValueError("a negative order")
        return pa.array([order >= 0])


    @node.serve_goals("goal", "result", feedback="feedback", cancel="cancel")
    def compute(goal):
        order = goal.value.field("order")[0].as_py()
        if order == 13:
            raise ValueError("bad luck")
        if order == 999:
            os._exit(3)
        sequence = [0, 1]
        while len(sequence) < order:
            sequence.append(sequence[-1] + sequence[-2] & 0xFFFF)
            goal.feedback(pa.array([{"sequence": sequence[-3:]}]))
            if goal.wait(0.02):
                break
        return pa.array([{"sequence": sequence[:8]}])


    node.serve()
"""


def served(tmp_path: Path, ros: Path, domain: int) -> Flow:
    flow = Flow(tmp_path)
    flow.nodes.append(
        action(
            ros,
            domain,
            "server",
            inputs={
                "feedback": {"source": "serve/feedback", "queue_size": 100},
                "result": "serve/result",
                "goal_response": "serve/goal_response",
            },
            outputs=["goal", "cancel", "goal_request"],
        )
    )
    flow.node(
        "serve",
        SERVE,
        inputs={
            "goal": "bridge/goal",
            "cancel": "bridge/cancel",
            "goal_request": "bridge/goal_request",
        },
        outputs=["feedback", "result", "goal_response"],
    )
    return flow


def test_a_dataflow_accepts_rejects_feeds_cancels_and_aborts_goals_of_ros_clients(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = served(tmp_path, ros, domain)
    client = peer("actions", "send", "/fibonacci", 6, -1, -2, 13, 5000)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=120)
        reports = json.loads(line_of(client))
        last = peer("actions", "send", "/fibonacci", 999)
        text = running.result().expect(1).output
    # Of a short goal, the feedback may be over before the client knows its publisher.
    assert reports["6"][:3] == [True, SUCCEEDED, [0, 1, 1, 2, 3, 5]]
    assert reports["-1"] == reports["-2"] == [False, 0, [], False]
    assert reports["13"] == [True, ABORTED, [], False]
    assert reports["5000"][:2] == [True, CANCELED]
    assert reports["5000"][3] is True
    # Who works on it has ended. The bridge waits for the client to fetch that, but not for long.
    aborted = json.loads(line_of(last)).get("999")
    if "/fibonacci: peers may lack what was sent last" not in text:
        assert aborted[:2] == [True, ABORTED], text
    assert "goals of /fibonacci rejected: " in text
    assert "goals of /fibonacci failed: ValueError: bad luck" in text


SEND = """
    import pyarrow as pa
    from dora import Node
    from dora.patterns import RemoteError
    from probe import report

    node = Node()


    def send(order):
        return node.send_goal("goal", pa.array([{"order": order}]), timeout=90)


    def outcome(goal):
        try:
            sequence = goal.result()["value"].field("sequence")[0].as_py()
        except RemoteError as error:
            return [goal.status, str(error)]
        return [goal.status, sequence]


    short, rejected, canceled = send(6), send(-1), send(5000)
    for event in canceled:
        canceled.cancel()
        break
    report([outcome(short), outcome(rejected), outcome(canceled)])
    endless = send(6000)
    for event in endless:
        break
    report("endless")
    report(outcome(endless))
"""


def test_goals_of_a_dataflow_succeed_are_rejected_canceled_and_lost_with_their_server(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Flow(tmp_path)
    flow.nodes.append(
        action(
            ros,
            domain,
            "client",
            inputs={"goal": "send/goal", "cancel": "send/cancel"},
            outputs=["feedback", "result"],
        )
    )
    flow.node(
        "send",
        SEND,
        inputs={
            "feedback": {"source": "bridge/feedback", "queue_size": 1000},
            "result": "bridge/result",
        },
        outputs=["goal", "cancel"],
    )
    server = peer("actions", "serve", "/fibonacci", short_lease=True)
    assert line_of(server) == "ready"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=120)
        while line_of(server) not in ("executes 6000", ""):
            pass
        server.send_signal(signal.SIGKILL)
        running.result().expect(0)
    first, _, last = flow.reports("send")
    short, rejected, canceled = first
    assert short == ["succeeded", [0, 1, 1, 2, 3, 5]]
    assert rejected == ["aborted", "GoalRejectedError: the server of /fibonacci has rejected it"]
    assert canceled == ["canceled", [0, 1, 1]]
    assert last == ["aborted", "ServerLostError: the server of /fibonacci has ended"]
