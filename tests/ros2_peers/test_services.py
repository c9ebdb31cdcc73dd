"""Services between a dataflow and real nodes of ROS 2, both ways."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.harness.dataflow import Flow

from .conftest import Peer, line_of


def bridge(ros: Path, domain: int, node_id: str, **keys: Any) -> dict[str, Any]:
    """Return a node with a `ros2` block for a service or an action; `inputs` and `outputs` too."""
    ports = {each: keys.pop(each) for each in ("inputs", "outputs")}
    return {"id": node_id, "ros2": {"setup": str(ros), "domain_id": domain, **keys}, **ports}


def client_of(ros: Path, domain: int, node_id: str, name: str) -> dict[str, Any]:
    return bridge(
        ros,
        domain,
        node_id,
        service=name,
        service_type="test_msgs/BasicTypes",
        role="client",
        inputs={"request": f"ask/{node_id}"},
        outputs=["response"],
    )


ASK_TOGETHER = """
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    # As a node of dora's sends it: without an id, which its response does not have, either.
    node.send_output("double", pa.array([{"int64_value": 7}]))


    def ask(number):
        event = node.call("double", pa.array([{"int64_value": number}]), timeout=60)
        return event["value"].field("int64_value")[0].as_py()


    with ThreadPoolExecutor(3) as pool:
        numbers = list(pool.map(ask, (1, 2, 3)))
    event = next(each for each in node if each["type"] == "INPUT")
    report([numbers, event["value"].field("int64_value")[0].as_py()])
"""


def test_calls_are_in_flight_together(tmp_path: Path, ros: Path, domain: int, peer: Peer) -> None:
    flow = Flow(tmp_path)
    flow.nodes.append(client_of(ros, domain, "double", "/double"))
    flow.node("ask", ASK_TOGETHER, inputs={"answer": "double/response"}, outputs=["double"])
    # It answers once all four are there.
    assert line_of(peer("services", "serve", "/double", 4)) == "ready"
    flow.run(deadline=90).expect(0)
    assert flow.reports("ask") == [[[2, 4, 6], 14]]


ASK_IN_VAIN = """
    import threading

    import pyarrow as pa
    from dora import Node
    from dora.patterns import RemoteError
    from probe import report

    node = Node()


    def ask(output):
        try:
            node.call(output, pa.array([{"int64_value": 1}]), timeout=90)
        except RemoteError as error:
            report([output, str(error)])


    threads = [threading.Thread(target=ask, args=(each,)) for each in ("ended", "absent", "other")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    try:
        node.call("ended", pa.array([{"int32_value": "text"}]), timeout=90)
    except RemoteError as error:
        report(["wrong", str(error)])
"""


def test_a_call_that_nothing_can_answer_fails(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Flow(tmp_path)
    for node_id, name in (("ended", "/double"), ("absent", "/absent"), ("other", "/set")):
        flow.nodes.append(client_of(ros, domain, node_id, name))
    ports = ("ended", "absent", "other")
    flow.node(
        "ask",
        ASK_IN_VAIN,
        inputs={each: f"{each}/response" for each in ports},
        outputs=list(ports),
    )
    server = peer("services", "serve", "/double", 2, short_lease=True)
    assert line_of(server) == "ready"
    assert line_of(peer("services", "serve_set", "/set")) == "ready"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=120)
        assert line_of(server) == "1"
        server.send_signal(signal.SIGKILL)
        text = running.result().expect(0).output
    assert dict(flow.reports("ask")) == {
        "ended": "ServerLostError: the server of /double has ended",
        "absent": "NoServerError: the service /absent has no server",
        "other": "NoServerError: /set is of the type std_srvs/srv/SetBool,"
        " not test_msgs/srv/BasicTypes",
        "wrong": "ConversionError: int32_value must be int32, not string",
    }
    assert "1 of 2 messages on ask/ended -> ended/request could not be read" in text


HANDLE = """
    import os

    import pyarrow as pa
    from dora import Node

    node = Node()
    count = 0


    @node.serve("request", "response")
    def handle(event):
        global count
        count += 1
        if count == 2:
            raise ValueError("not now")
        if count == 3:
            os._exit(3)
        return pa.array([{"success": event["value"].field("data")[0].as_py(), "message": "done"}])


    node.serve()
"""


def test_clients_get_answers_errors_and_the_end_of_who_was_to_answer(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Flow(tmp_path)
    flow.nodes.append(
        bridge(
            ros,
            domain,
            "set",
            service="/set",
            service_type="std_srvs/SetBool",
            role="server",
            inputs={"response": "handle/response"},
            outputs=["request"],
        )
    )
    flow.node("handle", HANDLE, inputs={"request": "set/request"}, outputs=["response"])
    client = peer("services", "call", "/set")
    text = flow.run(deadline=90).expect(1).output
    answer, error, end = json.loads(line_of(client))
    assert answer == [True, "done"]
    assert error == [False, "ValueError: not now"]
    assert end == [False, "input response is closed: nothing answers any more"]
    assert "2 requests of /set failed" in text


DOUBLE = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    held = []
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "request":
            held.append(event)
            if len(held) == 50:
                break
    for event in reversed(held):
        number = event["value"].field("int64_value")[0].as_py()
        node.send_service_response(
            "response", pa.array([{"int64_value": 2 * number}]), event["metadata"]
        )
"""


def test_fifty_requests_wait_together_and_are_answered_in_any_order(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Flow(tmp_path)
    flow.nodes.append(
        bridge(
            ros,
            domain,
            "double",
            service="/double",
            service_type="test_msgs/BasicTypes",
            role="server",
            inputs={"response": {"source": "handle/response", "queue_size": 100}},
            outputs=["request"],
        )
    )
    flow.node(
        "handle",
        DOUBLE,
        inputs={"request": {"source": "double/request", "queue_size": 100}},
        outputs=["response"],
    )
    client = peer("services", "many", "/double", 50)
    flow.run(deadline=90).expect(0)
    assert line_of(client) == str(sum(2 * each for each in range(50)))
