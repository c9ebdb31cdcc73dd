"""The extension table of a node without a dataflow, and of a forked child."""

from pathlib import Path

import pytest
from dora.testing import MockNode

from tests.harness.dataflow import Flow
from tests.node.bed import run_node


def test_a_mock_has_its_own_table() -> None:
    node = MockNode([])
    node.extension_store("n", "k", b"1")
    assert node.extension_load("n", "k") == b"1"
    assert MockNode([]).extension_load("n", "k") is None
    assert node.extension_load("n", "k", remove=True) == b"1"
    node.extension_drop("n", "k")
    assert node.drain_dropped_extension_keys("n") == ["k"]
    with pytest.raises(TypeError, match="must be bytes, got str"):
        node.extension_store("n", "k", "text")


def test_a_node_on_a_file_has_its_own_table(tmp_path: Path) -> None:
    ran = run_node(
        """
        from dora import Node

        node = Node()
        node.extension_store("n", "k", b"1")
        print(node.extension_load("n", "k", True), node.drain_dropped_extension_keys("n"))
        try:
            node.extension_store("n", "large", bytes((1 << 26) + 1))
        except RuntimeError as error:
            print("refused")
        """,
        [],
        folder=tmp_path,
    )
    assert ran.printed == ["b'1' ['k']", "refused"], ran.errors


def test_a_dataflows_table_refuses_what_is_too_large(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        for key, size in (("large", (1 << 26) + 1), ("k" * 70_000, 1)):
            try:
                node.extension_store("n", key, bytes(size))
            except RuntimeError as error:
                report(str(error)[-13:])
        node.extension_store("n", "k", bytes(1 << 26))
        report(len(node.extension_load("n", "k")) == 1 << 26)
        """,
    )
    flow.run().expect(0)
    assert flow.reports("node") == ["08864 allowed", " are too long", True]


def test_a_forked_child_has_no_table(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import os
        from dora import Node
        from probe import report

        node = Node()
        node.extension_store("n", "k", b"1")
        pid = os.fork()
        if pid == 0:
            try:
                node.extension_load("n", "k", remove=True)
            except RuntimeError as error:
                report("forked child" in str(error))
            os._exit(0)
        os.waitpid(pid, 0)
        report(node.extension_load("n", "k").decode())
        """,
    )
    flow.run().expect(0)
    assert flow.reports("node") == [True, "1"]
