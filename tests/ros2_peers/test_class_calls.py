"""Services and actions of dora's ROS 2 classes, beside real nodes of ROS 2."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from dorad.ros2.lastsent import SENT_S
from tests.harness.waiting import until

from .conftest import Peer, line_of
from .test_classes import AT_END, HEAD, RosFlow
from .test_classes import flow as flow

RELIABLE = """
qos = Ros2QosPolicies(reliable=True, max_blocking_time=0.1)
"""

FIBONACCI = 'ros.create_action_{side}("/fib", "test_msgs/Fibonacci", qos)\n'


def test_a_client_calls_a_service_of_ros_from_several_threads(flow: RosFlow, peer: Peer) -> None:
    assert line_of(peer("calls", "serve", "/demo/lamp")) == "ready"
    flow.program(
        "client",
        HEAD
        + RELIABLE
        + """
from concurrent.futures import ThreadPoolExecutor

client = ros.create_service_client("lamp", "std_srvs/SetBool", qos)


def call(number):
    return client.call(pa.array([{"data": number % 2 == 1}]))[0].as_py()


with ThreadPoolExecutor(8) as pool:
    report(list(pool.map(call, range(40))))
for wrong in ({"date": True}, {"data": 5}):
    try:
        client.call(wrong)
    except RuntimeError as error:
        report(str(error))
try:
    ros.create_service_client("lamp", "std_srvs/SetBool", Ros2QosPolicies())
except RuntimeError as error:
    report(str(error))
""",
    )
    flow.run(deadline=90).expect(0)
    answers, unknown, wrong, unreliable = flow.reports("client")
    expected = [{"success": False, "message": "off"}, {"success": True, "message": "on"}] * 20
    assert answers == expected
    assert "has no field `date`" in unknown
    assert "data must be bool" in wrong
    assert "reliable=True" in unreliable


async def test_a_call_ends_with_its_timeout_if_the_server_is_gone(
    flow: RosFlow, peer: Peer
) -> None:
    server = peer("calls", "serve", "/lamp")
    flow.program(
        "client",
        HEAD
        + RELIABLE
        + """
client = ros.create_service_client("/lamp", "std_srvs/SetBool", qos)
assert client.call({"data": True})[0].as_py()["success"]
report("called")
while not Path("killed").exists():
    time.sleep(0.02)
try:
    client.call({"data": True}, timeout_s=0.2)
except RuntimeError as error:
    report(str(error))
""",
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=90)
        await until(lambda: "called" in flow.reports("client") or running.done())
        server.kill()
        server.wait()
        (flow.folder / "killed").touch()
        running.result().expect(0)
    assert flow.reports("client")[1] == "/lamp has not answered within 0.2 s"


def test_a_server_answers_clients_of_ros_in_any_order(flow: RosFlow, peer: Peer) -> None:
    flow.program(
        "server",
        HEAD
        + RELIABLE
        + """
server = ros.create_service_server("/lamp", "std_srvs/SetBool", qos)
taken = []
while len(taken) < 8:
    if (request := server.take_request(timeout_s=0.5)) is not None:
        taken.append(request)
for number, value in reversed(taken):
    data = value[0].as_py()["data"]
    server.send_response(number, {"success": data, "message": f"got {data}"})
try:
    server.send_response(taken[0][0], {})
except RuntimeError as error:
    report(str(error))
assert server.take_request(0) is None
for event in Node():
    if event["type"] == "INPUT" and not ros._ros.count_clients("/lamp"):
        break
""",
        inputs={"tick": "dora/timer/millis/20"},
    )
    client = peer("calls", "call", "/lamp", 8)
    flow.run(deadline=90).expect(0)
    assert json.loads(line_of(client)) == [[False, "got False"], [True, "got True"]] * 4
    assert "answered, given up or never taken" in flow.reports("server")[0]


def test_a_process_ends_once_its_last_answer_has_had_time_to_arrive(
    flow: RosFlow, peer: Peer
) -> None:
    flow.program(
        "server",
        AT_END
        + HEAD
        + RELIABLE
        + """
server = ros.create_service_server("/lamp", "std_srvs/SetBool", qos)
while (request := server.take_request(timeout_s=0.5)) is None:
    pass
report(time.monotonic())
server.send_response(request[0], {"success": True})
""",
    )
    peer("calls", "call", "/lamp", 1)
    flow.run(deadline=90).expect(0)
    sent_s, ended_s = flow.reports("server")
    assert ended_s - sent_s > SENT_S


def test_a_client_sends_goals_to_a_server_of_ros(flow: RosFlow, peer: Peer) -> None:
    assert line_of(peer("calls", "serve-goals", "/fib")) == "ready"
    flow.program(
        "client",
        HEAD
        + RELIABLE
        + "client = "
        + FIBONACCI.format(side="client")
        + """
goal = client.send_goal(pa.array([{"order": 5}]))
status, result = client.take_result(goal, timeout_s=30)
report([status, result[0].as_py()["sequence"]])
report(client.send_goal({"order": 13}))
goal = client.send_goal({"order": 20})
feedback = client.take_feedback(goal, timeout_s=30)
report(feedback[0].as_py()["sequence"])
assert client.take_result(goal, timeout_s=0.1) is None
report(client.cancel(goal))
report(client.take_result(goal)[0])
report(client.cancel("00000000-0000-0000-0000-000000000001"))
try:
    client.take_result(goal)
except RuntimeError as error:
    report(str(error))
""",
    )
    flow.run(deadline=90).expect(0)
    done, rejected, feedback, code, status, unknown, again = flow.reports("client")
    assert done == ["succeeded", [0, 1, 1, 2, 3, 5]]
    assert rejected is None
    assert feedback[:3] == [0, 1, 1]
    assert (code, status, unknown) == (0, "canceled", 2)
    assert "or its result was taken" in again


@pytest.mark.parametrize("how", ["succeeded", "canceled", "anything"])
def test_a_server_serves_goals_of_clients_of_ros(flow: RosFlow, peer: Peer, how: str) -> None:
    flow.program(
        "server",
        HEAD
        + RELIABLE
        + "server = "
        + FIBONACCI.format(side="server")
        + f"""
while (goal := server.take_goal(timeout_s=0.5)) is None:
    pass
goal_id, value = goal
order = value[0].as_py()["order"]
sequence = [0, 1]
for _ in range(order - 1):
    sequence.append(sequence[-1] + sequence[-2])
    server.send_feedback(goal_id, {{"sequence": sequence}})
if {how!r} == "canceled":
    while (canceled := server.take_cancel(timeout_s=0.5)) is None:
        pass
    assert canceled == [goal_id]
server.send_result(goal_id, pa.array([{{"sequence": sequence}}]), {how!r}, timeout_s=60)
try:
    server.send_feedback(goal_id, {{"sequence": sequence}})
except RuntimeError as error:
    report(str(error))
# A process that ends takes what was not delivered with it.
while not Path("heard").exists():
    time.sleep(0.02)
""",
    )
    client = peer("calls", "goal", "/fib", 4, *(["cancel"] if how == "canceled" else []))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=90)
        answer = line_of(client)
        (flow.folder / "heard").touch()
        running.result().expect(0)
    accepted, code, feedback, status, sequence = json.loads(answer)
    assert accepted
    assert code == (0 if how == "canceled" else None)
    assert status == {"succeeded": 4, "canceled": 5, "anything": 6}[how]
    assert sequence == [0, 1, 1, 2, 3]
    # Some may come before the subscription of the client is found.
    assert all(each in ([0, 1, 1], [0, 1, 1, 2], [0, 1, 1, 2, 3]) for each in feedback)
    assert "has a result already" in flow.reports("server")[0]
