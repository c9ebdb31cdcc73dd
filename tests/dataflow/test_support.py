"""Keys that are known but not supported yet."""

import pytest

from dorad.dataflow.support import MAX_NODES, unsupported
from tests.dataflow.reading import node_text, path_node_text, read


def test_the_line_reads_well() -> None:
    (found,) = unsupported(read(path_node_text("deploy: {machine: m}")))
    assert str(found) == (
        "flow.yml:4:5: nodes[0].deploy: `deploy` needs the coordinator of a fleet (start it"
        " with `dora start --coordinator-addr`, or remove it to run everything here)"
    )


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ("hub: x@1", "hub"),
    ],
)
def test_kinds_without_behaviour(keys: str, key: str) -> None:
    assert [one.key for one in unsupported(read(node_text(keys)))] == [f"nodes[0].{key}"]


@pytest.mark.parametrize(
    ("keys", "key", "expected", "hint"),
    [
        (
            "operator: {shared-library: x}",
            "operator.shared-library",
            "operators are written in Python; a `shared-library` cannot be loaded",
            "make it a separate program and name it with `path`",
        ),
        (
            "operators: [{id: a, python: x.py}, {id: b, wasm: x.wasm}]",
            "operators[1].wasm",
            "operators are written in Python; a `wasm` cannot be loaded",
            "write the operator in Python",
        ),
        (
            "operator: {python: {source: x.py, conda_env: e}}",
            "operator.python.conda_env",
            "conda environments are not activated",
            "VIRTUAL_ENV",
        ),
        (
            "operator: {python: 'https://example.org/x.py'}",
            "operator.python",
            "an operator is a local file",
            "download it yourself",
        ),
    ],
)
def test_operators_that_cannot_be_run(keys: str, key: str, expected: str, hint: str) -> None:
    (found,) = unsupported(read(node_text(keys)))
    assert (found.key, found.message) == (f"nodes[0].{key}", expected)
    assert found.line == 3
    assert found.column > 5
    assert found.hint is not None
    assert hint in found.hint


def test_top_level_keys_without_behaviour() -> None:
    assert [one.line for one in unsupported(read("nodes: []\ndeploy: {machine: m}"))] == [2]
    assert unsupported(read("nodes: []\nstrict_types: false\ndeploy:\ntype_rules: []")) == ()


def test_everything_that_works_is_supported() -> None:
    flow = read(
        """
        env: {A: 1}
        debug: {enable_debug_inspection: true}
        health_check_interval: 1
        strict_types: true
        type_rules: [{from: std/core/v1/Float64, to: std/core/v1/Float32}]
        exit_when_nodes_finish: true
        nodes:
          - id: a
            name: n
            description: d
            path: a.py
            args: x
            env: {B: 2}
            build: make
            inputs:
              t: dora/timer/secs/1
              b: {source: b/o, queue_size: 1, queue_policy: backpressure, input_timeout: 1}
            outputs: [o]
            output_framing: {o: raw}
            output_types: {o: std/core/v1/Float64}
            input_types: {b: std/core/v1/Float64}
            output_metadata: {o: [x]}
            cpu_affinity: [0]
            spin_us: 0
            shared_memory_pool_size: 1MB
            restart_policy: on-failure
            max_restarts: 3
            restart_delay: 0.5
            health_check_timeout: 5
            startup_timeout: 10
            finish_grace_secs: 1
          - {id: b, path: dynamic, outputs: [o], output_types: {o: std/core/v1/Float64}}
          - {id: c, path: shell, args: 'true'}
          - {id: d, path: "https://example.org/x"}
        """
    )
    assert unsupported(flow) == ()


def test_all_unsupported_keys_are_reported_in_the_order_of_the_file() -> None:
    flow = read(
        "nodes:\n- {id: a, hub: x@1}\n- id: b\n  path: y\n  deploy: {machine: m}\n"
        "deploy: {machine: m}"
    )
    assert [one.line for one in unsupported(flow)] == [2, 5, 6]


def test_more_nodes_than_a_daemon_runs_are_refused_before_any_starts() -> None:
    lines = [f"- {{id: n{number}, path: dynamic}}" for number in range(MAX_NODES + 1)]
    (found,) = unsupported(read("\n".join(["nodes:", *lines])))
    assert (found.line, found.message) == (
        1,
        "1001 nodes are too many for one dataflow; the maximum is 1000",
    )
    assert unsupported(read("\n".join(["nodes:", *lines[1:]]))) == ()
