"""Restarts of a node: its parameters and counters, its queued messages, and events at its peers."""

from pathlib import Path

import pytest

from tests.harness.dataflow import Flow


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)


def test_parameters_are_available_before_the_first_event(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        report([node.param("gain"), node.params()])
        try:
            node.param("gian")
        except KeyError as error:
            report(error.args[0])
        """,
    )
    flow.nodes[-1]["params"] = {"gain": 1.5, "mode": {"default": "slow"}}
    flow.run(stop_after=20).expect(0)
    assert flow.reports("node") == [
        [1.5, {"gain": 1.5, "mode": "slow"}],
        "no parameter 'gian'; did you mean 'gain'?",
    ]


def test_a_restarted_node_continues_where_it_died_and_its_receivers_are_notified(
    flow: Flow,
) -> None:
    flow.node(
        "source",
        """
        import time
        from dora import Node

        node = Node()
        for number in range(300):
            node.send_output("out", bytes([number % 256]))
            time.sleep(0.005)
        """,
        outputs=["out"],
    )
    flow.node(
        "middle",
        """
        import os
        from dora import Node
        from probe import report

        node = Node()
        report([node.is_restart(), node.restart_count()])
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("out", event["value"])
                report(event["value"][0].as_py())
                if event["value"][0].as_py() == 50 and not node.is_restart():
                    os._exit(3)
        """,
        inputs={"in": {"source": "source/out", "queue_size": 1000}},
        outputs=["out"],
    )
    flow.nodes[-1] |= {"restart_policy": "on-failure"}
    flow.node(
        "sink",
        """
        from dora import Node
        from probe import report

        for event in Node():
            if event["type"] == "INPUT":
                report(event["value"][0].as_py())
            else:
                report([event["type"], event["id"], event.get("reason")])
        """,
        inputs={"in": {"source": "middle/out", "queue_size": 1000}},
    )
    flow.run(stop_after=30).expect(0)
    expected = [number % 256 for number in range(300)]
    middle = flow.reports("middle")
    assert [each for each in middle if isinstance(each, list)] == [[False, 0], [True, 1]]
    assert [each for each in middle if isinstance(each, int)] == expected
    sink = flow.reports("sink")
    assert [each for each in sink if isinstance(each, int)] == expected
    assert [each for each in sink if isinstance(each, list)] == [
        ["NODE_RESTARTED", "middle", None],
        ["INPUT_CLOSED", "in", "finished"],
        ["STOP", "ALL_INPUTS_CLOSED", None],
    ]
