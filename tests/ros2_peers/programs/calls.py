"""Services and actions of rclpy, for dora's classes to talk to.

calls.py serve NAME: a std_srvs/SetBool that answers with `on` or `off`
calls.py call NAME COUNT: call such a service COUNT times at once; print the answers as JSON
calls.py serve-goals NAME: a test_msgs/Fibonacci that rejects order 13, and runs 20 until canceled
calls.py goal NAME ORDER [cancel]: send a goal; print feedback, status, result as JSON
"""

import contextlib
import json
import sys
import time

import rclpy
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from std_srvs.srv import SetBool
from test_msgs.action import Fibonacci

TIMEOUT_S = 60


def finish(node, future):
    rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
    if not future.done():
        sys.exit("no answer")
    return future.result()


def answer(request, response):
    response.success, response.message = request.data, "on" if request.data else "off"
    return response


def call(node, name, count):
    client = node.create_client(SetBool, name)
    if not client.wait_for_service(TIMEOUT_S):
        sys.exit("no server")
    futures = [client.call_async(SetBool.Request(data=bool(each % 2))) for each in range(count)]
    answers = [finish(node, each) for each in futures]
    print(json.dumps([[each.success, each.message] for each in answers]), flush=True)


def execute(goal):
    sequence = [0, 1]
    for _ in range(goal.request.order - 1):
        sequence.append(sequence[-1] + sequence[-2])
        goal.publish_feedback(Fibonacci.Feedback(sequence=sequence))
    if goal.request.order == 20:
        # A client may come to know the feedback later than it has sent the goal.
        while not goal.is_cancel_requested:
            goal.publish_feedback(Fibonacci.Feedback(sequence=sequence))
            time.sleep(0.05)
        goal.canceled()
        return Fibonacci.Result(sequence=[])
    goal.succeed()
    return Fibonacci.Result(sequence=sequence)


def decide(goal):
    return GoalResponse.REJECT if goal.order == 13 else GoalResponse.ACCEPT


def send_goal(node, name, order, also_cancel):
    client = ActionClient(node, Fibonacci, name)
    if not client.wait_for_server(TIMEOUT_S):
        sys.exit("no server")
    feedback = []
    handle = finish(
        node,
        client.send_goal_async(
            Fibonacci.Goal(order=order),
            feedback_callback=lambda each: feedback.append(list(each.feedback.sequence)),
        ),
    )
    code = None
    if also_cancel:
        code = finish(node, handle.cancel_goal_async()).return_code
    result = finish(node, handle.get_result_async())
    print(
        json.dumps([handle.accepted, code, feedback, result.status, list(result.result.sequence)]),
        flush=True,
    )


def main():
    what, name, *rest = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("caller")
    executor = MultiThreadedExecutor(4)
    if what == "call":
        call(node, name, int(rest[0]))
        return
    if what == "goal":
        send_goal(node, name, int(rest[0]), "cancel" in rest)
        return
    if what == "serve":
        node.create_service(SetBool, name, answer)
    else:
        group = rclpy.callback_groups.ReentrantCallbackGroup()
        node.server = ActionServer(
            node,
            Fibonacci,
            name,
            execute,
            goal_callback=decide,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
        )
    executor.add_node(node)
    print("ready", flush=True)
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


main()
