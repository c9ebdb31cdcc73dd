"""Prints the cores on which a process, its threads and its children may run."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from dora import Node

CHILD = "import os; print(sorted(os.sched_getaffinity(0)))"


def cores() -> list[int]:
    """Return the cores of the calling thread."""
    return sorted(os.sched_getaffinity(0))


def main() -> None:
    """Ask the kernel in three places."""
    Node()
    with ThreadPoolExecutor() as pool:
        thread = pool.submit(cores).result()
    command = [sys.executable, "-c", CHILD]
    child = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print(f"cores of the process {cores()}, of a thread {thread}, of a child {child}")


if __name__ == "__main__":
    main()
