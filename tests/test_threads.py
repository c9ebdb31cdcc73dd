"""A thread that fails ends its process, or tells who waits for it."""

import subprocess
import sys

import pytest

from dorad.record.replay.due import ReadAhead
from tests.harness.waiting import DEADLINE_S

COURIER = """
from dorad.link.machine import Courier

class Publisher:
    def put(self, frame):
        raise FAILURE

Courier(Publisher(), "vital").send(b"frame", may_wait=True)
"""
WRITER = """
from dorad.daemon.subscription import tasks

class Node:
    def __init__(self):
        self.events = [{"type": "INPUT", "id": "in", "value": pa.array([1]), "metadata": {}}]

    def next(self):
        if self.events:
            return self.events.pop()
        threading.Event().wait()

class Out:
    def write(self, data):
        if b"message" in bytes(data):
            raise FAILURE
        return len(data)

import pyarrow as pa
import dorad.node.node
dorad.node.node.Node = Node
tasks._echo(Out(), 10, "")
"""


@pytest.mark.parametrize("script", [COURIER, WRITER], ids=["courier", "writer"])
@pytest.mark.parametrize("failure", ["OSError(28, 'full')", "ValueError('odd')", "SystemExit(0)"])
def test_a_process_ends_with_a_thread_that_it_cannot_do_without(script: str, failure: str) -> None:
    lines = f"import threading\nFAILURE = {failure}\n{script}\nthreading.Event().wait()\n"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 1, done.stderr
    assert "has failed, and its process ends" in done.stderr
    assert failure.partition("(")[0] in done.stderr


@pytest.mark.parametrize("failure", [OSError(5, "gone"), SystemExit(0)])
def test_what_is_read_ahead_fails_where_it_is_taken(failure: BaseException) -> None:
    def source():
        raise failure
        yield

    ahead = ReadAhead(source())
    with pytest.raises(type(failure)):
        next(iter(ahead))
    ahead.close()
