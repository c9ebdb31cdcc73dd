"""The methods by which a node inspects itself, its dataflow, and its dora."""

import uuid

from tests.harness.dataflow import Flow


def test_a_node_knows_its_inputs_as_in_the_file(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        config = Node().node_config()
        report(config["inputs"])
        report(sorted(config["outputs"]))
        """,
        inputs={
            "tick": "dora/timer/millis/50",
            "long": {"source": "dora/timer/secs/1", "queue_size": 3},
        },
        outputs=["a", "b/c"],
    )
    flow.run(stop_after=10).expect(0)
    inputs, outputs = flow.reports("node")
    assert inputs["tick"] == "dora/timer/millis/50"
    assert inputs["long"]["source"] == "dora/timer/secs/1"
    assert inputs["long"]["queue_size"] == 3
    assert outputs == ["a", "b/c"]


def test_a_node_knows_the_whole_file(flow: Flow) -> None:
    flow.node("other", "import dora; dora.Node()", outputs=["x"])
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        descriptor = node.dataflow_descriptor()
        report([entry["id"] for entry in descriptor["nodes"]])
        report(descriptor["nodes"][1]["inputs"])
        report([descriptor["deploy"], descriptor["health_check_interval"], descriptor["debug"]])
        report({key: descriptor["nodes"][0][key] for key in ("deploy", "inputs", "max_restarts")})
        report(node.dataflow_id())
        """,
        inputs={"x": "other/x"},
    )
    flow.run(stop_after=10).expect(0)
    ids, inputs, top, defaults, dataflow_id = flow.reports("node")
    assert top == [None, None, {"enable_debug_inspection": False}]
    assert defaults == {"deploy": None, "inputs": {}, "max_restarts": 0}
    assert ids == ["other", "node"]
    assert inputs == {"x": "other/x"}
    assert uuid.UUID(dataflow_id)


def test_the_first_start_is_not_a_restart(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        report([node.is_restart(), node.restart_count()])
        """,
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("node") == [[False, 0]]


def test_timestamps_are_aware_utc_and_rise(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import datetime as dt
        from dora import Node
        from probe import report

        node = Node()
        before, after = node.timestamp(), node.timestamp()
        now = dt.datetime.now(dt.timezone.utc)
        report([str(before.tzinfo), before <= after, abs((now - after).total_seconds())])
        """,
    )
    flow.run(stop_after=10).expect(0)
    [[zone, ordered, seconds]] = flow.reports("node")
    assert zone == "UTC"
    assert ordered
    assert seconds < 20


def test_the_module_has_the_names_that_nodes_import(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import dora
        from dora import DoraStatus, Node, __version__
        from probe import report

        Node()
        report([DoraStatus.CONTINUE.value, DoraStatus.STOP.value, DoraStatus.STOP_ALL.value])
        report([isinstance(__version__, str), callable(dora.run), callable(dora.build)])
        from dora.builder import DataflowBuilder
        from dora.testing import MockNode
        """,
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("node") == [[0, 1, 2], [True, True, True]]


def test_env_values_reach_the_process_as_text(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import os
        from dora import Node
        from probe import report

        Node()
        report([os.environ[name] for name in ("I", "F", "B", "S", "D", "CI_SET")])
        """,
        env={
            "I": 3,
            "F": 1.5,
            "B": True,
            "S": "a b",
            "D": "${DORAD_TEST_UNSET:-fallback}",
            "CI_SET": "$PATH",
        },
    )
    flow.run(stop_after=10).expect(0)
    [[*values, path]] = flow.reports("node")
    assert values == ["3", "1.5", "true", "a b", "fallback"]
    assert "/" in path


def test_log_methods_show_level_and_message(flow: Flow) -> None:
    flow.node(
        "talker",
        """
        from dora import Node

        node = Node()
        node.log_info("an-info")
        node.log_warn("a-warning")
        node.log_error("an-error")
        node.log("info", "with-target", target="here", fields={"k": "v"})
        """,
    )
    outcome = flow.run(stop_after=10).expect(0)
    for level, message in (
        ("INFO", "an-info"),
        ("WARN", "a-warning"),
        ("ERROR", "an-error"),
        ("INFO", "with-target"),
    ):
        lines = [line for line in outcome.lines_about("talker", [message]) if level in line]
        assert lines, f"{message} at {level} is not shown:\n{outcome.output}"
