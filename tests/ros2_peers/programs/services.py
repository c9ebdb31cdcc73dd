"""Services of ROS 2 with rclpy.

services.py serve NAME COUNT: test_msgs/BasicTypes that doubles int64_value, once COUNT requests are
    there at the same time; prints a line for each
services.py serve_set NAME: std_srvs/SetBool
services.py call NAME: std_srvs/SetBool, three calls one after the other; prints their responses
services.py many NAME COUNT: test_msgs/BasicTypes, COUNT calls at once; prints the sum of responses
"""

import json
import sys
import threading

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool
from test_msgs.srv import BasicTypes

TIMEOUT_S = 60


def serve(node, name, count):
    barrier = threading.Barrier(count)

    def double(request, response):
        print(request.int64_value, flush=True)
        barrier.wait(TIMEOUT_S)
        response.int64_value = 2 * request.int64_value
        return response

    node.create_service(BasicTypes, name, double, callback_group=ReentrantCallbackGroup())
    executor = MultiThreadedExecutor(count + 1)
    executor.add_node(node)
    print("ready", flush=True)
    executor.spin()


def serve_set(node, name):
    node.create_service(SetBool, name, lambda request, response: response)
    print("ready", flush=True)
    rclpy.spin(node)


def ready(client):
    if not client.wait_for_service(TIMEOUT_S):
        sys.exit("no server")
    return client


def call(node, name):
    client = ready(node.create_client(SetBool, name))
    responses = []
    for _ in range(3):
        future = client.call_async(SetBool.Request(data=True))
        rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
        responses.append([future.result().success, future.result().message])
    print(json.dumps(responses), flush=True)


def many(node, name, count):
    # Usually a client of ROS 2 keeps ten responses that it has not read, and loses more.
    client = ready(node.create_client(BasicTypes, name, qos_profile=QoSProfile(depth=count)))
    futures = [client.call_async(BasicTypes.Request(int64_value=each)) for each in range(count)]
    for future in futures:
        rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
        if not future.done():
            sys.exit("a response is missing")
    print(sum(each.result().int64_value for each in futures), flush=True)


def main():
    what, name, *rest = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("peer")
    if what == "serve":
        serve(node, name, int(rest[0]))
    elif what == "serve_set":
        serve_set(node, name)
    elif what == "call":
        call(node, name)
    else:
        many(node, name, int(rest[0]))


main()
