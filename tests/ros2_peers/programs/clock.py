"""The time of a simulation, and what follows it.

clock.py publish: publish /clock, from FIRST_S on
clock.py listen: print two different times of /clock, in ns, as JSON
clock.py stamp IMAGES DONE: print the first stamp on IMAGES, in ns; then publish on DONE
"""

import json
import sys
import time

import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import UInt64

FIRST_S = 1000
STEP_NS = 20_000_000
TIMEOUT_S = 60


def nanoseconds(stamp):
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def publish(node):
    publisher = node.create_publisher(Clock, "/clock", 1)
    now_ns = FIRST_S * 1_000_000_000
    while True:
        sec, nanosec = divmod(now_ns, 1_000_000_000)
        publisher.publish(Clock(clock=Time(sec=sec, nanosec=nanosec)))
        now_ns += STEP_NS
        time.sleep(STEP_NS / 1e9)


def wait_for(node, done):
    deadline = time.monotonic() + TIMEOUT_S
    while not done() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)


def listen(node):
    # As nodes of ROS 2 subscribe to it.
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    times = set()
    node.create_subscription(Clock, "/clock", lambda each: times.add(nanoseconds(each.clock)), qos)
    print("ready", flush=True)
    wait_for(node, lambda: len(times) > 1)
    print(json.dumps(list(times)), flush=True)


def stamp(node, images, done):
    stamps = []

    def receive(image):
        if nanoseconds(image.header.stamp):
            stamps.append(nanoseconds(image.header.stamp))

    node.create_subscription(Image, images, receive, 10)
    publisher = node.create_publisher(UInt64, done, 10)
    wait_for(node, lambda: stamps)
    print(json.dumps(stamps[:1]), flush=True)
    while True:
        publisher.publish(UInt64())
        time.sleep(0.1)


def main():
    what, *rest = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("clock")
    {"publish": publish, "listen": listen, "stamp": stamp}[what](node, *rest)


main()
