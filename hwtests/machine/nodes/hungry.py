"""Use more of the resource HUNGRY_FOR than the limit allows, and print how far it gets."""

import os
import time

from dora import Node

WANTED = os.environ["HUNGRY_FOR"]
SECONDS = 4.0

taken: list[bytes] = []
for event in Node():
    if event["type"] != "INPUT":
        break
    if WANTED == "memory":
        taken.append(os.urandom(8 << 20))
        print(f"has {8 * len(taken)} MiB", flush=True)
    elif WANTED == "cpu":
        before, end = time.process_time(), time.monotonic() + SECONDS
        while time.monotonic() < end:
            pass
        print(f"share {(time.process_time() - before) / SECONDS:.2f}", flush=True)
    else:
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(1000)
        except OSError as error:
            print(f"after some processes: {error.strerror}", flush=True)
        time.sleep(1000)
