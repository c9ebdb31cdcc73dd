"""Inputs in short and long form."""

import pytest

from dorad.dataflow.model import Input, LogSource, NodeOutput, QueuePolicy, Timer
from tests.dataflow.reading import error, path_node, path_node_text, problem, read

_SECOND = Timer(10**9)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("dora/timer/secs/1", Input("i", _SECOND)),
        ("{source: dora/timer/secs/1}", Input("i", _SECOND, long_form=True)),
        ("{source: dora/timer/secs/1, queue_size: 3}", Input("i", _SECOND, 3, long_form=True)),
        ("{source: dora/timer/secs/1, queue_size: 0}", Input("i", _SECOND, 1, long_form=True)),
        ("{source: dora/timer/secs/1, queue_size: ~}", Input("i", _SECOND, 10, long_form=True)),
        (
            "{source: dora/timer/secs/1, queue_policy: drop_oldest}",
            Input("i", _SECOND, long_form=True),
        ),
        (
            "{source: dora/timer/secs/1, queue_policy: backpressure, input_timeout: 0.5}",
            Input("i", _SECOND, 10, QueuePolicy.BACKPRESSURE, 0.5, True),
        ),
        (
            "{source: dora/timer/secs/1, input_timeout: 0}",
            Input("i", _SECOND, input_timeout=0.0, long_form=True),
        ),
        (
            "{source: dora/timer/secs/1, queue_policy: latest}",
            Input("i", _SECOND, 1, QueuePolicy.LATEST, long_form=True),
        ),
        (
            "{source: dora/timer/secs/1, queue_policy: latest, queue_size: 1}",
            Input("i", _SECOND, 1, QueuePolicy.LATEST, long_form=True),
        ),
        (
            "{source: dora/logs, max_rate_hz: 5}",
            Input("i", LogSource(), long_form=True, max_rate_hz=5.0),
        ),
        (
            "{source: dora/logs, latched: false}",
            Input("i", LogSource(), long_form=True),
        ),
    ],
)
def test_each_form_of_an_input_is_read(written: str, found: Input) -> None:
    assert path_node(f"inputs: {{i: {written}}}").inputs == (found,)


def test_inputs_keep_their_order_and_spelling() -> None:
    inputs = path_node("outputs: [o]\ninputs: {z: a/o, b: dora/timer/hz/2}").inputs
    assert [(i.id, i.source.text) for i in inputs] == [("z", "a/o"), ("b", "dora/timer/hz/2")]
    assert inputs[0].source == NodeOutput("a", "o")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("~", "inputs.i: must be a source, not nothing (write `node/output`, or a mapping"),
        ("5", "inputs.i: must be a source, not 5"),
        ("[a/b]", "inputs.i: must be a source, not a list"),
        ("a", "inputs.i: `a` is not a source (write `node/output` or"),
        ("{}", "inputs.i: needs `source` (such as `node/output`)"),
        ("{queue_size: 1}", "inputs.i: needs `source`"),
        ("{sorce: dora/timer/secs/1}", "inputs.i.sorce: unknown key `sorce` (did you mean `source"),
        ("{source: 5}", "inputs.i.source: `5` is not a source"),
        ("{source: ''}", "inputs.i.source: cannot be empty"),
        ("{source: dora/timer/secs/1, queue_size: -1}", "inputs.i.queue_size: must be a whole"),
        ("{source: dora/timer/secs/1, queue_size: 1.5}", "inputs.i.queue_size: must be a whole"),
        (
            "{source: dora/timer/secs/1, queue_size: '5'}",
            "inputs.i.queue_size: must be a whole number from 0 to 16777216, not `5` (without quo",
        ),
        (
            "{source: dora/timer/secs/1, queue_size: 100000000000000000000}",
            "inputs.i.queue_size: must be a whole number from 0 to 16777216",
        ),
        (
            "{source: dora/timer/secs/1, queue_policy: block}",
            "inputs.i.queue_policy: must be one of drop_oldest, backpressure, latest, not `block`",
        ),
        (
            "{source: dora/timer/secs/1, input_timeout: .nan}",
            "inputs.i.input_timeout: must be a finite number of seconds, 0 or more, not .nan",
        ),
        (
            "{source: dora/timer/secs/1, queue_policy: latest, queue_size: 2}",
            "inputs.i.queue_size: must be 1 with `queue_policy: latest`, not 2 (leave it out",
        ),
        (
            "{source: dora/timer/secs/1, latched: true}",
            "inputs.i.latched: a timer has no last value",
        ),
        ("{source: dora/logs, latched: true}", "inputs.i.latched: log lines are not kept"),
        ("{source: dora/logs, latched: 1}", "inputs.i.latched: must be true or false, not 1"),
        (
            "{source: dora/timer/secs/1, max_rate_hz: 5}",
            "inputs.i.max_rate_hz: the rate of a timer is in its source (write `source: dora/tim",
        ),
        (
            "{source: dora/logs, max_rate_hz: 0}",
            "inputs.i.max_rate_hz: must be a number from 0.001 to 1e+06, not 0",
        ),
        (
            "{source: dora/logs, max_rate_hz: '5'}",
            "inputs.i.max_rate_hz: must be a number from 0.001 to 1e+06, not `5` (without quotes)",
        ),
        ("{source: dora/logs, max_rate_hz: .nan}", "inputs.i.max_rate_hz: must be a number from"),
    ],
)
def test_a_mistake_names_its_key_and_what_is_valid(written: str, message: str) -> None:
    assert error(f"inputs: {{i: {written}}}").startswith(message)


def test_a_mistake_in_the_long_form_has_its_own_place() -> None:
    found = problem(
        path_node_text("inputs:\n  image:\n    source: dora/timer/secs/1\n    queue_size: -3")
    )
    assert str(found).startswith("flow.yml:7:21: nodes[0].inputs.image.queue_size: ")


def test_an_output_of_printed_lines_cannot_be_latched() -> None:
    found = problem("""\
        nodes:
          - {id: a, path: a.py, outputs: [out], send_stdout_as: out}
          - id: b
            path: b.py
            inputs:
              lines:
                source: a/out
                latched: true
    """)
    place, shown = str(found).split(": ", 1)
    assert place == "flow.yml:8:9"
    assert shown.endswith(".latched: `a/out` carries printed lines, and the last one is not kept")


def test_backpressure_cannot_hold_back_printed_lines_which_is_said() -> None:
    (warning,) = read("""\
        nodes:
          - {id: a, path: a.py, outputs: [out], send_logs_as: out}
          - {id: b, path: b.py, inputs: {i: {source: a/out, queue_policy: backpressure}}}
    """).warnings
    assert str(warning).startswith("flow.yml:3:")
    assert "`a/out` carries printed lines, which wait for no receiver" in str(warning)


def test_the_options_of_an_operator_are_those_of_its_node() -> None:
    found = read("""\
        nodes:
          - id: a
            operator:
              python: a.py
              inputs:
                i: {source: b/o, latched: true, max_rate_hz: 2, queue_policy: latest}
          - {id: b, path: b.py, outputs: [o]}
    """).nodes[0]
    assert found.all_inputs == (
        Input("op/i", NodeOutput("b", "o"), 1, QueuePolicy.LATEST, None, True, True, 2.0),
    )
    assert found.may_skip("op/i")


def test_rate_limits_between_operators_of_one_node_are_refused() -> None:
    found = problem("""\
        nodes:
          - id: a
            operators:
              - {id: one, python: one.py, outputs: [o]}
              - id: two
                python: two.py
                inputs:
                  i: {source: a/one/o, max_rate_hz: 2}
    """)
    place, shown = str(found).split(": ", 1)
    assert place == "flow.yml:8:32"
    assert "max_rate_hz: `a/one/o` is an operator of the same node" in shown
