"""A node's process imports only what it uses."""

from pathlib import Path

from tests.harness.dataflow import Flow
from tests.node.bed import run_source

HEAVY = [
    *["pyarrow", "numpy", "asyncio", "yaml", "click", "rich", "psutil", "posix_ipc", "email"],
    *["dorad.daemon", "dorad.cli", "dorad.commandline", "dorad.launch", "dorad.logs"],
    "dorad.dataflow",
]


def test_a_node_that_counts_ticks_imports_nothing_heavy(flow: Flow) -> None:
    flow.node(
        "node",
        f"""
        import sys
        from dora import Node
        from probe import report

        ticks = 0
        node = Node()
        for event in node:
            ticks += event["type"] == "INPUT" and event["id"] == "tick"
            if ticks == 3:
                break
        node.log_info("three")
        del node
        report([name for name in {HEAVY!r} if name in sys.modules])
        """,
        inputs={"tick": "dora/timer/millis/10"},
    )
    flow.run().expect(0)
    assert flow.reports("node") == [[]]


def test_a_node_that_receives_data_imports_pyarrow_and_nothing_else(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        Node().send_output("out", pa.array([1]))
        """,
        outputs=["out"],
    )
    flow.node(
        "sink",
        f"""
        import sys
        import pyarrow
        already = set(sys.modules)
        from dora import Node
        from probe import report

        for event in Node():
            if event["type"] == "INPUT":
                event["value"]
        report([name for name in {HEAVY!r} if name in sys.modules and name not in already])
        """,
        inputs={"in": "source/out"},
    )
    flow.run().expect(0)
    assert flow.reports("sink") == [[]]


def test_importing_dora_and_its_parts_imports_no_yaml_parser(tmp_path: Path) -> None:
    ended = run_source(
        f"""
        import sys
        import dora, dora.builder, dora.testing
        print([name for name in {HEAVY!r} if name in sys.modules and name != "dorad.dataflow"])
        """,
        cwd=tmp_path,
    )
    assert ended.stdout.strip() == "[]", ended.stderr
