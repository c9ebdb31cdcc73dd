"""Operators of a runtime node."""

import pytest

from dorad.dataflow.model import NodeOutput
from dorad.dataflow.settings import Logging, LogLevel
from tests.dataflow.reading import node, node_text, problem, read


def test_one_operator_is_called_op() -> None:
    found = node("operator: {python: x.py, outputs: [o]}")
    (operator,) = found.operators
    assert (operator.id, operator.language, operator.source) == ("op", "python", "x.py")
    assert found.single_operator
    assert found.all_outputs == ("op/o",)


def test_every_key_of_an_operator() -> None:
    (operator,) = node(
        """
        operator:
          id: det
          name: n
          description: d
          python: {source: x.py, conda_env: e}
          inputs: {t: dora/timer/secs/1}
          outputs: [o]
          output_types: {o: x}
          input_types: {t: x}
          output_framing: {o: raw}
          output_metadata: {o: [k]}
          pattern: action-server
          build: make
          send_stdout_as: o
          send_logs_as: o
          min_log_level: warn
          max_log_size: 1KB
          max_rotated_files: 2
        """
    ).operators
    assert (operator.id, operator.name, operator.description) == ("det", "n", "d")
    assert (operator.source, operator.conda_env, operator.build) == ("x.py", "e", ("make",))
    assert (operator.types.outputs, operator.types.pattern) == ({"o": "x"}, "action-server")
    assert operator.logging == Logging("o", "o", LogLevel.WARN, 1024, 2)


def test_other_languages() -> None:
    found = node("operators: [{id: a, shared-library: b.so}, {id: c, wasm: d.wasm}]")
    assert [(o.language, o.source) for o in found.operators] == [
        ("shared-library", "b.so"),
        ("wasm", "d.wasm"),
    ]


def test_the_ports_of_several_operators_carry_their_ids() -> None:
    found = node(
        """
        operators:
          - {id: x, python: x.py, outputs: [o], inputs: {t: dora/timer/secs/1}}
          - {id: y, python: y.py, inputs: {t: a/x/o}}
        """
    )
    assert [i.id for i in found.all_inputs] == ["x/t", "y/t"]
    assert found.all_outputs == ("x/o",)


def test_a_source_at_a_lone_operator_is_completed() -> None:
    flow = read(
        """
        nodes:
          - id: a
            operator: {python: x.py, outputs: [o, p/q]}
          - id: b
            path: y
            inputs: {short: a/o, full: a/op/o, nested: a/p/q}
        """
    )
    assert [i.source for i in flow.node("b").inputs] == [
        NodeOutput("a", "op/o"),
        NodeOutput("a", "op/o"),
        NodeOutput("a", "op/p/q"),
    ]
    assert [i.source.text for i in flow.node("b").inputs] == ["a/o", "a/op/o", "a/p/q"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("operator: x.py", "operator: must be a mapping with `python` and the operator's ports"),
        ("operator: {}", "operator: needs one of python, shared-library, wasm"),
        ("operator: {pyton: x}", "operator.pyton: unknown key `pyton` (did you mean `python`?)"),
        ("operator: {python: x, wasm: y}", "operator.wasm: `python` and `wasm` exclude each other"),
        ("operator: {python: {}}", "operator.python: needs `source`"),
        ("operator: {python: [x]}", "operator.python: must be text, not a list"),
        ("operator: {python: {sourc: x}}", "operator.python.sourc: unknown key `sourc` (did you m"),
        ("operator: {id: a/b, python: x}", "operator.id: the operator id `a/b` contains a `/`"),
        ("operator: {id: a b, python: x}", "operator.id: ` ` is not allowed in the id `a b`"),
        ("operators: {python: x}", "operators: must be a list, not a mapping"),
        ("operators: [{python: x}]", "operators[0]: needs `id`"),
        (
            "operators: [{id: x, python: x}, {id: x, wasm: y}]",
            "operators[1]: two operators with the id `x`, the first in line 3",
        ),
        (
            "operators: [{id: x, python: x, max_log_size: 1}, {id: y, wasm: y, max_log_size: 1}]",
            "operators[1].max_log_size: only one operator of a node may set it; first in line 3",
        ),
        (
            "operator: {python: x, send_stdout_as: o}",
            "operator.send_stdout_as: `o` is not among the outputs",
        ),
    ],
)
def test_mistakes(keys: str, message: str) -> None:
    found = problem(node_text(keys))
    assert message in str(found)


def test_logging_keys_of_an_operator_apply_to_its_node() -> None:
    found = node(
        """
        operators:
          - {id: x, python: x.py, outputs: [o], send_stdout_as: o}
          - {id: y, python: y.py, outputs: [l], send_logs_as: l, max_rotated_files: 2}
        min_log_level: warn
        """
    )
    assert found.logging == Logging("x/o", "y/l", LogLevel.WARN, None, 2)


def test_the_node_may_name_an_output_of_an_operator() -> None:
    found = node("operator: {python: x.py, outputs: [o]}\nsend_logs_as: op/o")
    assert found.logging == Logging(None, "op/o")
    error = problem(node_text("operator: {python: x.py, outputs: [o]}\nsend_logs_as: o"))
    assert error.message == "`o` is not among the outputs"


def test_a_logging_key_may_be_given_only_once() -> None:
    error = problem(node_text("operator: {python: x.py, min_log_level: info}\nmin_log_level: warn"))
    assert error.message == "the operator `op` sets it, too"
    assert error.line == 4


def test_an_operator_node_may_restart_and_be_watched() -> None:
    found = node(
        """
        operator: {python: x.py}
        restart_policy: always
        max_restarts: 3
        health_check_timeout: 2
        startup_timeout: 5
        finish_grace_secs: 1
        shared_memory_pool_size: 1MB
        """
    )
    assert (found.restart.policy, found.restart.max_restarts) == ("always", 3)
    assert (found.health_check_timeout, found.startup_timeout) == (2.0, 5.0)


def blocking(target: str, back: str) -> str:
    return f"""
    nodes:
      - id: n
        operators:
          - id: x
            python: x.py
            inputs: {{i: {{source: {back}, queue_policy: backpressure}}}}
            outputs: [o]
          - id: y
            python: y.py
            inputs: {{i: {{source: {target}, queue_policy: backpressure}}}}
            outputs: [o]
          - {{id: z, python: z.py, inputs: {{t: dora/timer/secs/1}}, outputs: [o]}}
    """


def test_operators_of_one_node_may_wait_for_each_other_in_a_row() -> None:
    assert read(blocking("n/x/o", "n/z/o")).nodes


def test_operators_that_wait_for_each_other_in_a_cycle_are_refused() -> None:
    error = problem(blocking("n/x/o", "n/y/o"))
    assert error.message.startswith("every input on the cycle n/")
    assert "n/x" in error.message
    assert "n/y" in error.message
