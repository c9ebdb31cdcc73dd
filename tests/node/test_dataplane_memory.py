"""Shared memory in running dataflows: lifetime, size, and a full /dev/shm."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.running import write
from tests.harness.dataflow import PROBE, Flow, clean_environment, json_lines
from tests.harness.process import run


def test_a_held_array_stays_unchanged_after_its_publisher_has_exited(flow: Flow) -> None:
    flow.node(
        "publisher",
        """
        import os
        import pyarrow as pa
        from dora import Node
        node = Node()
        array = node.empty(300_000, "int32")
        array[:] = 7
        node.send_output("out", array, {"pid": os.getpid()})
        node.send_output("out", pa.array([9] * 300_000, pa.int32()), {"pid": os.getpid()})
        with node.send_output_raw("out", 1_200_000, {"pid": os.getpid()}) as view:
            view[:] = b"\\5" * 1_200_000
        """,
        outputs=["out"],
    ).node(
        "other",
        """
        from dora import Node
        node = Node()
        node.next()
        for number in range(300):
            node.send_output("out", b"\\1" * 1_200_000)
        """,
        inputs={"go": "holder/go"},
        outputs=["out"],
    ).node(
        "holder",
        """
        import os, time
        from pathlib import Path
        from dora import Node
        from probe import report
        node = Node()
        held = {}
        for event in node:
            if event["id"] == "held":
                if event["type"] == "INPUT":
                    held[len(held)] = event["value"]
                    pid = event["metadata"]["pid"]
                elif event["type"] == "INPUT_CLOSED":
                    deadline = time.monotonic() + 10
                    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                        time.sleep(0.01)
                    report(Path(f"/proc/{pid}").exists())
                    node.send_output("go", b"1")
                    break
        for event in node:
            pass
        report([[len(value), *value.unique().to_pylist()] for value in held.values()])
        """,
        inputs={"held": "publisher/out", "others": "other/out"},
        outputs=["go"],
    ).run().expect(0)
    running, contents = flow.reports("holder")
    assert not running
    assert contents == [[300_000, 7], [300_000, 9], [1_200_000, 5]]


def test_a_receiver_that_holds_more_arrays_than_slots_still_receives(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        node = Node()
        for number in range(200):
            node.send_output("out", bytes([number]) * 5000)
        """,
        outputs=["out"],
    ).node(
        "hoarder",
        """
        from dora import Node
        from probe import report
        held = [event["value"] for event in Node() if event["type"] == "INPUT"]
        report([value.unique().to_pylist() for value in held])
        """,
        inputs={"x": {"source": "sender/out", "queue_size": 4, "queue_policy": "backpressure"}},
    ).run().expect(0)
    assert flow.reports("hoarder") == [[[number] for number in range(200)]]


def test_a_pool_does_not_grow_with_the_number_of_messages(flow: Flow) -> None:
    flow.node(
        "publisher",
        """
        from pathlib import Path
        from dora import Node
        from probe import report
        node = Node()
        data = bytes(1 << 20)
        for number in range(10_000):
            node.send_output("out", data)
        mapped = set()
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "/dev/shm/dorad-" in line:
                first, last = line.split()[0].split("-")
                mapped.add((int(first, 16), int(last, 16)))
        report(sum(last - first for first, last in mapped))
        """,
        outputs=["out"],
    ).node(
        "receiver",
        """
        from dora import Node
        from probe import report
        report(sum(len(event["value"]) == 1 << 20 for event in Node() if event["type"] == "INPUT"))
        """,
        inputs={"x": "publisher/out"},
    ).run(deadline=50).expect(0)
    assert flow.reports("receiver")[0] > 10
    # Ten queued, one written, one read, four ahead of need, and two mailboxes of 2 MiB each.
    assert flow.reports("publisher")[0] <= 20 << 20


def test_an_interrupted_send_does_not_change_what_some_receivers_already_have(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import signal
        from dora import Node
        from probe import report

        class Interrupted(Exception):
            pass

        def interrupt(*_):
            raise Interrupted

        node = Node()
        signal.signal(signal.SIGALRM, interrupt)
        node.send_output("out", b"fills the queue of one")
        array = node.empty(100_000, "uint8")
        array[:] = 1
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            node.send_output("out", array)
        except Interrupted:
            report("interrupted")
        del array
        for number in range(20):
            other = node.empty(100_000, "uint8")
            other[:] = 2
        node.send_output("end", b"")
        """,
        outputs=["out", "end"],
    ).node(
        "holder",
        """
        from pathlib import Path
        from dora import Node
        from probe import report
        held = []
        for event in Node():
            if event["type"] == "INPUT":
                if event["id"] == "end":
                    break
                held.append(event["value"])
        report([[len(value), value.unique().to_pylist()] for value in held[1:]])
        Path("looked").touch()
        """,
        inputs={"x": "sender/out", "end": "sender/end"},
    ).node(
        "stuck",
        """
        import time
        from pathlib import Path
        from dora import Node
        node = Node()
        deadline = time.monotonic() + 20
        while not Path("looked").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        """,
        inputs={"x": {"source": "sender/out", "queue_size": 1, "queue_policy": "backpressure"}},
    ).run().expect(0)
    assert flow.reports("sender") == ["interrupted"]
    assert flow.reports("holder") == [[[100_000, [1]]]]


SMALL_ROOM = "mount -t tmpfs -o size=32m tmpfs /dev/shm && exec dora run dataflow.yml"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="only root can mount its own small /dev/shm",
)


@needs_root
def test_a_full_shm_is_an_error_only_in_the_sending_node(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        nodes:
          - {id: greedy, path: greedy.py, outputs: [out], env: {PROBE: greedy}}
          - {id: taker, path: taker.py, inputs: {x: greedy/out}, env: {PROBE: taker}}
          - {id: modest, path: modest.py, inputs: {go: greedy/out}, outputs: [out]}
          - id: content
            path: content.py
            inputs: {x: {source: modest/out, queue_size: 300}}
            env: {PROBE: content}
        """,
        probe=PROBE,
        greedy="""
        import numpy as np
        from dora import Node
        from probe import report
        node = Node()
        for attempt in (
            lambda: node.send_output("out", bytes(50_000_000)),
            lambda: node.empty(50_000_000),
            lambda: node.send_output_raw("out", 50_000_000),
        ):
            try:
                attempt()
            except RuntimeError as error:
                report(str(error))
        node.send_output("out", bytes(1000))
        """,
        taker="""
        from dora import Node
        from probe import report
        report([len(event["value"]) for event in Node() if event["type"] == "INPUT"])
        """,
        modest="""
        from dora import Node
        node = Node()
        node.next()
        for number in range(300):
            node.send_output("out", bytes(3000))
        """,
        content="""
        from dora import Node
        from probe import report
        report(sum(event["type"] == "INPUT" for event in Node()))
        """,
    )
    outcome = run(
        ["unshare", "-m", "sh", "-c", SMALL_ROOM],
        cwd=tmp_path,
        env=clean_environment(Path(sys.executable).parent),
        deadline=30,
    ).expect(0)
    errors = json_lines(tmp_path / "greedy.jsonl")
    assert len(errors) == 3
    for error in errors:
        assert "50000000 bytes" in error
        assert "/dev/shm is full: 67108864 bytes requested, " in error
        assert " free" in error
    assert json_lines(tmp_path / "taker.jsonl") == [[1000]]
    assert json_lines(tmp_path / "content.jsonl") == [300]
    assert "Traceback" not in outcome.output


def test_a_receiver_cannot_change_what_others_receive(flow: Flow) -> None:
    """Neither through its array nor through its descriptors."""
    flow.node(
        "publisher",
        """
        import pyarrow as pa
        from dora import Node
        node = Node()
        node.next()
        node.send_output("out", pa.array([7] * 100_000, pa.int64()))
        node.send_output("out", pa.array([8] * 100_000, pa.int64()))
        """,
        inputs={"go": "thief/go"},
        outputs=["out"],
    ).node(
        "thief",
        """
        import mmap, os
        os.close = lambda descriptor: None
        import pyarrow as pa
        from dora import Node
        from probe import report
        node = Node()
        node.send_output("go", pa.array([1]))
        event = next(event for event in node if event["type"] == "INPUT")
        array = event["value"].to_numpy()
        def through_numpy():
            array.flags.writeable = True
        found = [int(name) for name in os.listdir("/proc/self/fd")
                 if os.path.lexists(f"/proc/self/fd/{name}")
                 and os.readlink(f"/proc/self/fd/{name}").startswith("/dev/shm/")]
        attempts = [through_numpy]
        for fd in found:
            attempts += [
                lambda fd=fd: mmap.mmap(fd, 0),
                lambda fd=fd: os.pwrite(fd, bytes(8), 0),
                lambda fd=fd: os.ftruncate(fd, 0),
            ]
            if os.getuid():
                attempts.append(lambda fd=fd: os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
        failed = 0
        for attempt in attempts:
            try:
                attempt()
            except (OSError, ValueError):
                failed += 1
        report([bool(found), event["value"].buffers()[1].is_mutable, len(attempts) - failed])
        node.send_output("done", pa.array([1]))
        """,
        inputs={"x": "publisher/out"},
        outputs=["go", "done"],
    ).node(
        "honest",
        """
        from dora import Node
        from probe import report
        values = []
        for event in Node():
            if event["type"] == "INPUT" and event["id"] == "x":
                values.append(event["value"])
        report([[value[0].as_py(), value[99_999].as_py()] for value in values])
        """,
        inputs={"x": "publisher/out", "done": "thief/done"},
    )
    flow.run().expect(0)
    assert flow.reports("thief") == [[True, False, 0]]
    assert flow.reports("honest") == [[[7, 7], [8, 8]]]
