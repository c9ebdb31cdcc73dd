"""`Node(...)` from the environment, by name, twice, and the errors."""

import sys
from pathlib import Path

import pytest

from tests.harness.dataflow import Flow, clean_environment
from tests.harness.process import run

VALUES = """
from dora import Node
from probe import report

for event in Node():
    if event["type"] == "INPUT":
        report(event["value"].to_pylist())
"""


@pytest.mark.parametrize(
    "call", ['Node("some-default")', 'Node(node_id="other")', "Node(None)", "dora.Node()"]
)
def test_a_node_started_by_a_daemon_takes_its_name_from_the_environment(
    flow: Flow, call: str
) -> None:
    flow.node(
        "sender",
        f"""
        import dora
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = {call}
        node.send_output("out", pa.array([1]))
        report(node.node_config()["outputs"])
        """,
        outputs=["out"],
    )
    flow.node(
        "sink",
        """
        import dora
        from probe import report

        for event in dora.Node():
            report(event["type"])
        """,
        inputs={"in": "sender/out"},
    )
    flow.run().expect(0)
    assert flow.reports("sender") == [["out"]]
    assert flow.reports("sink") == ["INPUT", "INPUT_CLOSED", "STOP"]


def test_a_second_node_in_one_process_works(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import pyarrow as pa
        from dora import Node

        first = Node()
        second = Node()
        first.send_output("out", pa.array([1]))
        second.send_output("out", pa.array([2]))
        """,
        outputs=["out"],
    )
    flow.node("sink", VALUES, inputs={"in": "sender/out"})
    flow.run().expect(0)
    assert flow.reports("sink") == [[1], [2]]


def test_a_second_node_after_the_first_one_ended_works(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        node.send_output("out", pa.array([1]))
        node = Node()
        node.send_output("out", pa.array([2]))
        """,
        outputs=["out"],
    )
    flow.node("sink", VALUES, inputs={"in": "sender/out"})
    flow.run().expect(0)
    assert flow.reports("sink") == [[1], [2]]


@pytest.mark.parametrize("call", ["Node()", 'Node("name")', 'Node(node_id="name")'])
def test_without_a_daemon_a_node_raises_within_5_seconds(tmp_path: Path, call: str) -> None:
    code = f"""
from dora import Node
try:
    {call}
except RuntimeError as error:
    print("RAISED", str(error))
"""
    outcome = run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(Path(sys.executable).parent),
        deadline=5,
    ).expect(0)
    assert outcome.output.startswith("RAISED"), outcome.output


def test_nodes_can_detect_that_a_daemon_started_them(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import os
        from dora import Node
        from probe import report

        report(bool(os.environ.get("DORA_NODE_CONFIG")))
        Node()
        """,
    )
    flow.run().expect(0)
    assert flow.reports("node") == [True]


HAND_STARTED = """
    import os
    import subprocess
    import sys
    from dora import Node
    from probe import report

    node = Node()
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("DORA_", "PYTHON"))}
    child = subprocess.run(
        [sys.executable, "by_hand.py"], env=bare, capture_output=True, text=True, timeout=20
    )
    report([child.returncode, child.stdout, child.stderr])
"""


def test_a_manually_started_process_attaches_as_a_dynamic_node(flow: Flow) -> None:
    (flow.folder / "by_hand.py").write_text(
        """
from dora import Node

node = Node("dyn")
event = node.next(timeout=10)
print(event["type"], event["id"])
""",
        encoding="utf-8",
    )
    flow.node("starter", HAND_STARTED)
    flow.dynamic("dyn", inputs={"tick": "dora/timer/millis/100"})
    flow.run(stop_after=20).expect(0)
    [[code, output, errors]] = flow.reports("starter")
    assert (code, output.strip()) == (0, "INPUT tick"), errors


@pytest.mark.parametrize("name", ["nobody", "starter"])
def test_a_name_of_no_dynamic_node_raises(flow: Flow, name: str) -> None:
    (flow.folder / "by_hand.py").write_text(
        f"""
from dora import Node

try:
    Node("{name}")
except RuntimeError as error:
    print("RAISED")
""",
        encoding="utf-8",
    )
    flow.node("starter", HAND_STARTED)
    flow.run(stop_after=20).expect(0)
    [[_, output, errors]] = flow.reports("starter")
    assert output.strip() == "RAISED", errors
