"""Actions of ROS 2 with rclpy: test_msgs/Fibonacci.

actions.py serve NAME: rejects negative orders; a goal of 1000 or more goes on until it is canceled
actions.py send NAME ORDER...: send goals at once; cancel one of 1000 or more at its first feedback;
    print for each order: [accepted, status, sequence, whether there was feedback]
"""

import json
import sys
import time

import rclpy
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from test_msgs.action import Fibonacci

TIMEOUT_S = 60
ENDLESS = 1000


def serve(node, name):
    def decide(goal):
        return GoalResponse.REJECT if goal.order < 0 else GoalResponse.ACCEPT

    def execute(handle):
        print(f"executes {handle.request.order}", flush=True)
        sequence = [0, 1]
        while len(sequence) < handle.request.order or handle.request.order >= ENDLESS:
            if handle.is_cancel_requested:
                handle.canceled()
                return Fibonacci.Result(sequence=sequence[:3])
            sequence.append(sequence[-1] + sequence[-2] & 0xFFFF)
            handle.publish_feedback(Fibonacci.Feedback(sequence=sequence[:3]))
            time.sleep(0.05)
        handle.succeed()
        return Fibonacci.Result(sequence=sequence)

    ActionServer(
        node,
        Fibonacci,
        name,
        execute,
        goal_callback=decide,
        cancel_callback=lambda handle: CancelResponse.ACCEPT,
        callback_group=ReentrantCallbackGroup(),
    )
    executor = MultiThreadedExecutor(8)
    executor.add_node(node)
    print("ready", flush=True)
    executor.spin()


def send(node, name, orders):
    client = ActionClient(node, Fibonacci, name)
    if not client.wait_for_server(TIMEOUT_S):
        sys.exit("no server")
    fed, handles, reports = set(), {}, {}

    def feed(order):
        def take(message):
            if message.feedback.sequence:
                fed.add(order)
            if order >= ENDLESS and order in handles:
                handles[order].cancel_goal_async()

        return take

    def accepted(order):
        def take(future):
            handle = future.result()
            if not handle.accepted:
                reports[order] = [False, 0, [], False]
                return
            handles[order] = handle
            handle.get_result_async().add_done_callback(finished(order))

        return take

    def finished(order):
        def take(future):
            response = future.result()
            sequence = list(response.result.sequence)
            reports[order] = [True, response.status, sequence, order in fed]

        return take

    for order in orders:
        future = client.send_goal_async(Fibonacci.Goal(order=order), feed(order))
        future.add_done_callback(accepted(order))
    deadline = time.monotonic() + TIMEOUT_S
    while len(reports) < len(orders) and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(reports), flush=True)


def main():
    what, name, *orders = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("peer")
    if what == "serve":
        serve(node, name)
    else:
        send(node, name, [int(each) for each in orders])


main()
