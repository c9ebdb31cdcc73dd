"""The floor: two processes that wake each other through bare eventfds, nothing else.

Arguments: number of round trips, then ``free`` or ``pinned`` (both on one core). Prints JSON.
"""

import json
import os
import sys
import time

WARM_UP = 200


def main() -> None:
    count, placement = int(sys.argv[1]), sys.argv[2]
    if placement == "pinned":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    there, back = os.eventfd(0), os.eventfd(0)
    child = os.fork()
    if not child:
        for _ in range(WARM_UP + count):
            os.eventfd_read(there)
            os.eventfd_write(back, 1)
        os._exit(0)
    times = []
    for _ in range(WARM_UP + count):
        begin = time.monotonic_ns()
        os.eventfd_write(there, 1)
        os.eventfd_read(back)
        times.append(time.monotonic_ns() - begin)
    os.waitpid(child, 0)
    print(json.dumps({"ns": times[WARM_UP:]}))


main()
