"""Declarations of services, actions and streams are checked at both ends."""

from pathlib import Path

import pytest

from dorad.dataflow.load import load
from tests.dataflow.reading import read

SERVICE = """
nodes:
  - id: client
    path: a.py
    inputs: {response: server/response}
    outputs: [request]
    pattern: service-client
    input_patterns: {response: service-response}
    output_patterns: {request: service-request}
  - id: server
    path: b.py
    inputs: {request: client/request}
    outputs: [response]
    pattern: service-server
    input_patterns: {request: service-request}
    output_patterns: {response: service-response}
"""
ACTION = """
nodes:
  - id: client
    path: a.py
    inputs: {feedback: server/feedback, result: server/result}
    outputs: [goal, cancel]
    pattern: action-client
    output_patterns: {goal: action-goal, cancel: action-cancel}
  - id: server
    path: b.py
    inputs: {goal: client/goal, cancel: client/cancel}
    outputs: [feedback, result]
    pattern: action-server
    output_patterns: {feedback: action-feedback, result: action-result}
"""


def warnings(text: str) -> list[str]:
    return [f"{w.key}: {w.message}" for w in read(text).warnings]


@pytest.mark.parametrize("text", [SERVICE, ACTION])
def test_matching_ends_give_no_warning(text: str) -> None:
    assert warnings(text) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "inputs: {request: client/request}",
            "inputs: {request: dora/timer/secs/1}",
            [
                (
                    "nodes[0].pattern: `service-client` has no service-server: no node receives "
                    "an output of `client` and sends something back"
                ),
                (
                    "nodes[0].output_patterns.request: `request` is `service-request`, but no node "
                    "receives it"
                ),
                (
                    "nodes[1].pattern: `service-server` has no service-client: no node receives "
                    "an output of `server` and sends something back"
                ),
            ],
        ),
        (
            "pattern: service-server",
            "pattern: action-server",
            [
                (
                    "nodes[0].pattern: `service-client` has no service-server: `server` is "
                    "`action-server`"
                ),
                (
                    "nodes[1].pattern: `action-server` has no action-client: `client` is "
                    "`service-client`"
                ),
            ],
        ),
        (
            "input_patterns: {request: service-request}",
            "input_patterns: {request: action-goal}",
            [
                (
                    "nodes[1].input_patterns.request: `request` is `action-goal`, but its source "
                    "`client/request` is `service-request`"
                ),
            ],
        ),
        (
            "input_patterns: {response: service-response}\n    output",
            "input_patterns: {response: stream}\n    output",
            [
                (
                    "nodes[0].input_patterns.response: `response` is `stream`, but its source "
                    "`server/response` is `service-response`"
                ),
                (
                    "nodes[0].output_patterns.request: `request` is `service-request`, but no "
                    "`service-response` comes back from `server`"
                ),
            ],
        ),
        (
            "output_patterns: {request: service-request}",
            "output_patterns: {request: service-reqest, nothing: stream}",
            [
                "nodes[0].output_patterns.request: unknown pattern `service-reqest`",
                "nodes[0].output_patterns.nothing: `nothing` is not among the outputs",
                (
                    "nodes[1].input_patterns.request: `request` is `service-request`, but its "
                    "source `client/request` is `service-reqest`"
                ),
            ],
        ),
    ],
)
def test_an_end_that_does_not_match_is_warned_of(
    before: str, after: str, expected: list[str]
) -> None:
    assert before in SERVICE
    assert warnings(SERVICE.replace(before, after)) == expected


def test_a_goal_needs_feedback_and_a_result() -> None:
    text = ACTION.replace(
        "{feedback: server/feedback, result: server/result}", "{f: server/feedback}"
    )
    assert warnings(text) == [
        (
            "nodes[0].output_patterns.goal: `goal` is `action-goal`, but no `action-result` comes "
            "back from `server`"
        ),
        "nodes[1].output_patterns.result: `result` is `action-result`, but no node receives it",
    ]


def test_an_unknown_role_is_reported_with_the_nearest_one() -> None:
    (found,) = [
        w for w in read(SERVICE.replace("service-client", "service-clinet")).warnings if w.hint
    ]
    assert (found.message, found.hint) == (
        "unknown pattern `service-clinet`",
        "did you mean `service-client`?",
    )


def test_operators_have_roles_too() -> None:
    text = """
    nodes:
      - id: client
        path: a.py
        inputs: {response: runtime/answer/response}
        outputs: [request]
        output_patterns: {request: service-request}
      - id: runtime
        operators:
          - id: answer
            python: b.py
            inputs: {request: client/request}
            outputs: [response]
            pattern: service-server
            output_patterns: {response: service-response}
    """
    assert warnings(text) == []
    assert warnings(
        text.replace("answer/response}", "answer/response2}").replace(
            "outputs: [response]", "outputs: [response, response2]"
        )
    ) == [
        (
            "nodes[1].operators[0].output_patterns.response: `response` is `service-response`, but "
            "no node receives it"
        ),
    ]


def test_a_role_in_a_module_is_reported_in_the_file_of_the_module(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text(
        """
nodes:
  - id: m
    module: mod.yml
    inputs: {question: client/question}
  - id: client
    path: c.py
    pattern: service-client
    inputs: {answer: m/answer}
    outputs: [question]
"""
    )
    (tmp_path / "mod.yml").write_text(
        """
module: {name: mod, inputs: [question], outputs: [answer]}
nodes:
  - id: server
    path: s.py
    pattern: action-server
    inputs: {question: _mod/question}
    outputs: [answer]
"""
    )
    found = [(Path(w.file).name, w.line, w.message) for w in load(tmp_path / "flow.yml").warnings]
    assert found == [
        (
            "flow.yml",
            8,
            "`service-client` has no service-server: `m.server` is `action-server`",
        ),
        ("mod.yml", 6, "`action-server` has no action-client: `client` is `service-client`"),
    ]
