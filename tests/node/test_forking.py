"""A forked child never disturbs its parent's node, neither by its calls nor by its end."""

from pathlib import Path

from tests.harness.dataflow import Flow
from tests.node.bed import run_node

IN_CHILD = """
    import os
    import sys
    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    raw = node.send_output_raw("out", 5)
    held = node.next()
    queued = node.next()
    fork_at_exit = {exits!r}
    pid = os.fork()
    if pid == 0:
        refused = 0
        ways = [
            node.next, lambda: node.next(0.01), node.try_recv, node.drain, node.is_empty,
            lambda: next(iter(node)), lambda: node.send_output("out", pa.array([1])),
            lambda: node.empty(5), lambda: node.send_output_raw("out", 5), raw.send, Node,
        ]
        for way in ways:
            try:
                way()
            except RuntimeError as error:
                refused += 1
        report([refused, len(ways)])
        held = queued = raw = None
        if fork_at_exit == "exit":
            sys.exit(0)
        os._exit(0)
    report(os.waitpid(pid, 0)[1])
    del raw
    numbers = [held["value"], queued["value"]]
    for event in node:
        if event["type"] == "INPUT":
            first = event["value"][0].as_py()
            node.send_output("out", pa.array([first]))
        elif event["type"] == "STOP":
            break
    report([len(value.unique()) for value in numbers] + [value[0].as_py() for value in numbers])
"""


def _run(flow: Flow, exits: str) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for number in range(60):
            node.send_output("out", pa.array([number] * 100_000, pa.uint8()))
            if number > 4:
                node.next()
        """,
        inputs={"done": {"source": "node/out", "queue_size": 100}},
        outputs=["out"],
    )
    flow.node(
        "node",
        IN_CHILD.format(exits=exits),
        inputs={"in": {"source": "source/out", "queue_size": 100}},
        outputs=["out"],
    )
    flow.node(
        "sink",
        """
        from dora import Node
        from probe import report

        report([event["value"][0].as_py() for event in Node() if event["type"] == "INPUT"])
        """,
        inputs={"in": {"source": "node/out", "queue_size": 100}},
    )
    flow.run().expect(0)
    refused, status, values = flow.reports("node")
    assert refused[0] == refused[1]
    assert status == 0
    # The child did not release the parent's arrays: they are unchanged.
    assert values == [1, 1, 0, 1]
    assert flow.reports("sink") == [list(range(2, 60))]


def test_a_forked_child_that_exits_normally_does_not_affect_the_node(flow: Flow) -> None:
    _run(flow, "exit")


def test_a_forked_child_that_exits_at_once_does_not_affect_the_node(flow: Flow) -> None:
    _run(flow, "_exit")


def test_forked_worker_processes_can_work_for_a_node(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import multiprocessing
        from dora import Node
        from probe import report

        node = Node()
        event = node.next()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            report(pool.map(abs, [-1, -2, -3]))
        report([node.next()["type"] for _ in range(3)])
        """,
        inputs={"tick": "dora/timer/millis/20"},
    )
    flow.run().expect(0)
    assert flow.reports("node") == [[1, 2, 3], ["INPUT"] * 3]


def test_a_forked_child_does_not_keep_the_connection_of_the_node_open(
    flow: Flow,
) -> None:
    flow.node(
        "node",
        """
        import os
        import stat
        from dora import Node
        from probe import report

        def sockets():
            found = 0
            for descriptor in range(3, 100):
                try:
                    found += stat.S_ISSOCK(os.fstat(descriptor).st_mode)
                except OSError:
                    continue
            return found

        before = sockets()
        node = Node()
        report(sockets() - before)
        if os.fork() == 0:
            report(sockets() - before)
            os._exit(0)
        os.wait()
        """,
        inputs={"tick": "dora/timer/millis/20"},
    )
    flow.run().expect(0)
    assert flow.reports("node") == [1, 0]


def test_a_node_on_test_inputs_is_refused_in_a_child_too(tmp_path: Path) -> None:
    ran = run_node(
        """
        import os
        from dora import Node

        node = Node()
        if os.fork() == 0:
            for way in (node.next, lambda: node.send_output("o", b"x")):
                try:
                    way()
                except RuntimeError as error:
                    print(str(error)[:40], flush=True)
            os._exit(0)
        os.wait()
        node.send_output("o", b"y")
        """,
        [],
        folder=tmp_path,
    )
    assert ran.printed == ["this Node belongs to its parent process "] * 2, ran.errors
    assert [line["data"] for line in ran.outputs] == [[ord("y")]]
