"""A node of ROS 2 with rclpy, which publishes or receives numbered messages.

peer.py publish TOPIC COUNT HZ [QOS]: std_msgs/UInt64, once the topic has a subscription. Number 0
    comes again and again until the file `started` exists: a subscription that is known need not
    know its publisher yet, and what it gets first is the proof.
peer.py listen TOPIC LAST [QOS]: make `started` at the first number; after LAST, print the numbers
    and when the topic had a publisher, on the monotonic clock, as one line of JSON
peer.py image TOPIC COUNT HZ SIZE: the same with sensor_msgs/Image, whose stamps are their numbers
    and 5 ns; number 0 has no pixels
peer.py see TOPIC LAST DONE: make `started` at the first image; after LAST, print the seconds of the
    stamps of images, and their sizes in bytes, as JSON; then publish on DONE
"""

import json
import sys
import time
from pathlib import Path

import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header, UInt64

TIMEOUT_S = 60
LARGE_TIMEOUT_S = 240
"""For what may be 300 MB large."""
STARTED = Path("started")


def profile(words):
    return QoSProfile(
        depth=10_000,
        reliability=(
            ReliabilityPolicy.BEST_EFFORT if "best_effort" in words else ReliabilityPolicy.RELIABLE
        ),
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL
            if "transient_local" in words
            else DurabilityPolicy.VOLATILE
        ),
    )


def publish(node, cls, topic, count, hz, make, qos):
    publisher = node.create_publisher(cls, topic, qos)
    print("ready", flush=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            sys.exit("no subscription")
        rclpy.spin_once(node, timeout_sec=0.05)
    while not STARTED.exists() and time.monotonic() < deadline:
        publisher.publish(make(0))
        rclpy.spin_once(node, timeout_sec=0.1)
    due = time.monotonic()
    for number in range(1, count):
        publisher.publish(make(number))
        due += 1 / hz
        time.sleep(max(0, due - time.monotonic()))
    # What is not acknowledged is lost when the publisher ends.
    publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=LARGE_TIMEOUT_S))


def listen(node, topic, last, qos):
    numbers = []

    def receive(message):
        numbers.append(message.data)
        STARTED.touch()

    subscription = node.create_subscription(UInt64, topic, receive, qos)
    print("ready", flush=True)
    deadline = time.monotonic() + TIMEOUT_S
    matched_s = None
    while last not in numbers[-1:] and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.01)
        if matched_s is None and subscription.get_publisher_count():
            matched_s = time.monotonic()
    print(json.dumps([numbers, matched_s]), flush=True)


def see(node, topic, last, done):
    stamps, sizes = [], set()

    def receive(image):
        stamps.append(image.header.stamp.sec)
        sizes.add(len(image.data))
        STARTED.touch()

    node.create_subscription(Image, topic, receive, profile(()))
    print("ready", flush=True)
    deadline = time.monotonic() + LARGE_TIMEOUT_S
    while last not in stamps[-1:] and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps([stamps, sorted(sizes)]), flush=True)
    publisher = node.create_publisher(UInt64, done, 10)
    while True:
        publisher.publish(UInt64())
        time.sleep(0.1)


def main():
    what, topic, count, *rest = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("peer")
    if what == "publish":

        def make(number):
            return UInt64(data=number)

        publish(node, UInt64, topic, int(count), float(rest[0]), make, profile(rest[1:]))
    elif what == "image":
        data = bytes(int(rest[1]))

        def make(number):
            header = Header(stamp=Time(sec=number, nanosec=5), frame_id="camera")
            pixels = data if number else b""
            return Image(header=header, height=number, width=1, encoding="mono8", data=pixels)

        publish(node, Image, topic, int(count), float(rest[0]), make, profile(rest[2:]))
    elif what == "see":
        see(node, topic, int(count), rest[0])
    else:
        listen(node, topic, int(count), profile(rest))


main()
