"""Nodes of ROS 2 alone, with rclpy.

ros_alone.py publish KIND COUNT HZ: images of 1 MB, or twists; their stamps are monotonic times
ros_alone.py receive KIND WARM COUNT: as message objects
"""

import sys
import time
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from rclpy.qos import QoSProfile
from ros_measure import QUIET_S, Measure
from sensor_msgs.msg import Image
from std_msgs.msg import Header

TIMEOUT_S = 60
SIZE = 1_000_000
KINDS = {"image": Image, "twist": TwistStamped}
TOPIC = "/measured"
QUEUE = QoSProfile(depth=100)


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)


def publish(node: Any, kind: str, count: int, hz: int) -> None:
    publisher = node.create_publisher(KINDS[kind], TOPIC, QUEUE)
    message = KINDS[kind](header=Header(frame_id="measured"))
    if kind == "image":
        message.data = bytes(SIZE)
        message.height, message.step, message.encoding = 1, SIZE, "mono8"
    deadline = time.monotonic() + TIMEOUT_S
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            sys.exit("no subscription")
        rclpy.spin_once(node, timeout_sec=0.05)
    due = time.monotonic() + 1
    for _ in range(count):
        time.sleep(max(0, due - time.monotonic()))
        sec, nanosec = divmod(time.monotonic_ns(), 1_000_000_000)
        message.header.stamp = Time(sec=sec, nanosec=nanosec)
        publisher.publish(message)
        due += 1 / hz
    publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=TIMEOUT_S))


def receive(node: Any, kind: str, warm: int, count: int) -> None:
    measure = Measure(warm, count)
    last_s = time.monotonic() + TIMEOUT_S
    is_done = False

    def take(message: Any) -> None:
        nonlocal last_s, is_done
        last_s = time.monotonic()
        is_done = measure.take(stamp_ns(message))

    node.create_subscription(KINDS[kind], TOPIC, take, QUEUE)
    while not is_done and time.monotonic() < last_s + QUIET_S:
        rclpy.spin_once(node, timeout_sec=1)
    measure.end()


def main() -> None:
    what, kind, first, second = sys.argv[1:]
    rclpy.init()
    act = publish if what == "publish" else receive
    act(rclpy.create_node(what), kind, int(first), int(second))


if __name__ == "__main__":
    main()
