"""The same as `receiver`, with nothing but Zenoh: COUNT CONFIG."""

import sys
import threading
import time

import zenoh

count = int(sys.argv[1])
times: list[tuple[int, int]] = []
done = threading.Event()


def take(sample: zenoh.Sample) -> None:
    """Take the payload out, as a node has it."""
    payload = sample.payload.to_bytes()
    times.append((int.from_bytes(payload[:8], "little"), time.monotonic_ns()))
    if len(times) == count:
        done.set()


with zenoh.open(zenoh.Config.from_json5(sys.argv[2])) as session:
    session.declare_subscriber("bench", zenoh.handlers.Callback(take, indirect=False))
    print("ready", flush=True)
    done.wait()
    for sent, received in times:
        print(sent, received)
