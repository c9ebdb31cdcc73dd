"""What is read from the shared memory of a dataflow: lateness, counters."""

from typing import NamedTuple

from dorad.shm.latencies import Buckets


class Lateness(NamedTuple):
    """The total lateness of a node with the ticks of one timer. Times in ns.

    The delay of a tick is the time from when it was due until the node took it. `sum` is the sum of
    all delays, `diff` the sum of the differences between successive ones, `most` the largest.
    `missed` ticks were taken after their deadline, or never.
    """

    node: str
    input: str
    interval_ns: int
    received: int
    sum: int
    diff: int
    most: int
    missed: int


class EdgeCounters(NamedTuple):
    """Counters of the messages of one edge; at rest, sent = received + dropped + queued.

    `refused` messages were never sent: the dataflow stopped while they waited for room.
    """

    source_node: str
    output: str
    node: str
    input: str
    queue_size: int
    sent: int
    received: int
    dropped: int
    queued: int
    payload_bytes: int
    refused: int
    last_ns: int = 0
    latency_sum: int = 0
    latency_diff: int = 0
    latencies: Buckets = ()
    """How many messages were received with which latency."""
    unreadable: int = 0
    """Received messages that became an ERROR event, because their entry was invalid."""
    lost: int = 0
    """Messages that were lost on the way from another machine, or from ROS 2."""
    limited: bool = False
    """Whether the file's `max_rate_hz` lets fewer messages through than are sent."""
