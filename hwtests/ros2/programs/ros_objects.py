"""A node with rclpy that makes Arrow arrays of message objects: ros_objects.py image|twist."""

import sys
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import rclpy
from dora import Node
from rclpy.executors import SingleThreadedExecutor
from ros_alone import KINDS, QUEUE, TOPIC, stamp_ns


def image_array(message: Any) -> pa.Array:
    return pa.array(np.frombuffer(message.data, np.uint8))


def twist_array(message: Any) -> pa.Array:
    parts = {"linear": message.twist.linear, "angular": message.twist.angular}
    return pa.array([{name: {"x": v.x, "y": v.y, "z": v.z} for name, v in parts.items()}])


def main() -> None:
    kind = sys.argv[1]
    array_of = {"image": image_array, "twist": twist_array}[kind]
    rclpy.init()
    ros, node = rclpy.create_node("objects"), Node()

    def take(message: Any) -> None:
        node.send_output("out", array_of(message), {"stamp_ns": stamp_ns(message)})

    ros.create_subscription(KINDS[kind], TOPIC, take, QUEUE)
    executor = SingleThreadedExecutor()
    executor.add_node(ros)

    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    for _ in node:
        pass
    executor.shutdown()
    thread.join()
    rclpy.shutdown()


main()
