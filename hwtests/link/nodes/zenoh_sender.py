"""The same as `sender`, with nothing but Zenoh: COUNT SIZE INTERVAL_S CONFIG."""

import sys
import time
from typing import Any

import zenoh

count, size, interval_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with zenoh.open(zenoh.Config.from_json5(sys.argv[4])) as session:
    # Its stubs take `matching_status` for a bool.
    publisher: Any = session.declare_publisher(
        "bench", congestion_control=zenoh.CongestionControl.BLOCK, express=True
    )
    while not publisher.matching_status.matching:
        time.sleep(0.01)
    rest = bytes(size - 8)
    due = time.monotonic()
    for _ in range(count):
        if interval_s:
            due += interval_s
            time.sleep(max(0.0, due - time.monotonic()))
        publisher.put(time.monotonic_ns().to_bytes(8, "little") + rest)
    sys.stdin.read()
