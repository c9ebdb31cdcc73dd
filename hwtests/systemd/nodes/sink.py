"""Counts what arrives, what is missing or broken, and how long messages took; a line a second."""

import json
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
from dora import Node

HEAD = struct.Struct("<3Q")
MEGABYTES = float(os.environ.get("LOAD_MEGABYTES", "0"))

payload = np.random.default_rng(1).integers(0, 255, int(MEGABYTES * (1 << 20)), dtype=np.uint8)
seed = zlib.crc32(payload.data)
file = Path(os.environ["LOAD_FILE"]).open("a", buffering=1)  # noqa: SIM115 - until the end
expected: int | None = None
total = missing = broken = 0
latencies: list[int] = []
worst_gap = 0
before = window = time.monotonic_ns()
checked = 0
for event in Node():
    if event["type"] == "STOP":
        break
    if event["type"] != "INPUT":
        continue
    now = time.monotonic_ns()
    data = event["value"].to_numpy(zero_copy_only=True)
    number, sent, check = HEAD.unpack(data[: HEAD.size].tobytes())
    body = data[HEAD.size :]
    good = check == zlib.crc32(struct.pack("<2Q", number, sent), seed)
    # All of it now and then: comparing 8 MiB thirty times a second would be most of the load.
    if len(body) and number % 10 == 0:
        good = good and bool(np.array_equal(body, payload))
        checked += 1
    broken += not good
    if expected is not None:
        missing += number != expected and abs(number - expected)
    expected = number + 1
    total += 1
    latencies.append(now - sent)
    worst_gap = max(worst_gap, now - before)
    before = now
    if now - window >= 1_000_000_000:
        file.write(
            json.dumps(
                {
                    "at": time.time(),
                    "pid": os.getpid(),
                    "total": total,
                    "missing": missing,
                    "broken": broken,
                    "gap_ms": worst_gap / 1e6,
                    "p50_us": float(np.percentile(latencies, 50)) / 1e3,
                    "p99_us": float(np.percentile(latencies, 99)) / 1e3,
                    "latencies_us": [round(each / 1e3) for each in latencies],
                }
            )
            + "\n"
        )
        latencies, worst_gap, window = [], 0, now
