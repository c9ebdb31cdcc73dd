"""Descriptions and outcomes of exits."""

import signal

import pytest

from dorad.daemon.rules.exits import (
    MAX_CHARACTERS,
    MAX_LINES,
    ExitContext,
    Outcome,
    Result,
    classify,
    never_started,
    not_started,
)
from dorad.launch.model import Exit

STOPPING = ExitContext(stopping=True)
FORCED = ExitContext(stopping=True, forced_reason="had to be killed")
ABORTED = ExitContext(root_cause="early", stopping=True)
REFUSED = ExitContext(root_cause="early", stopping=True, refused=True)
AWAITED = ExitContext(stopping=True, awaited=True)
HUNG = ExitContext(watchdog_reason="had not called dora for 3 s")


@pytest.mark.parametrize(
    ("exit_", "context", "outcome"),
    [
        (Exit(code=0), ExitContext(), Outcome.OK),
        (Exit(code=0), ABORTED, Outcome.OK),
        (Exit(code=0), FORCED, Outcome.OK),
        (Exit(code=1), ExitContext(), Outcome.FAILED),
        (Exit(code=1), STOPPING, Outcome.FAILED),
        (Exit(signal=signal.SIGTERM), ExitContext(), Outcome.FAILED),
        (Exit(signal=signal.SIGTERM), STOPPING, Outcome.OK),
        (Exit(signal=signal.SIGINT), STOPPING, Outcome.OK),
        (Exit(code=143), STOPPING, Outcome.OK),
        (Exit(code=130), STOPPING, Outcome.OK),
        (Exit(code=143), ExitContext(), Outcome.FAILED),
        (Exit(signal=signal.SIGSEGV), STOPPING, Outcome.FAILED),
        (Exit(signal=signal.SIGKILL), STOPPING, Outcome.FAILED),
        (Exit(signal=signal.SIGKILL), FORCED, Outcome.GRACE),
        (Exit(code=137), FORCED, Outcome.GRACE),
        (Exit(signal=signal.SIGTERM), FORCED, Outcome.GRACE),
        (Exit(code=1), FORCED, Outcome.FAILED),
        (Exit(code=1), REFUSED, Outcome.CASCADING),
        (Exit(code=0), REFUSED, Outcome.CASCADING),
        (Exit(code=0), AWAITED, Outcome.FAILED),
        (Exit(code=143), AWAITED, Outcome.FAILED),
        (Exit(signal=signal.SIGTERM), AWAITED, Outcome.FAILED),
        (Exit(signal=signal.SIGTERM), ABORTED, Outcome.CASCADING),
        (Exit(signal=signal.SIGKILL), ABORTED, Outcome.CASCADING),
        # It failed by itself: `Node()` has not raised.
        (Exit(code=1), ABORTED, Outcome.FAILED),
        (Exit(signal=signal.SIGSEGV), ABORTED, Outcome.FAILED),
    ],
)
def test_the_result_of_an_exit_depends_on_the_daemons_actions(
    exit_: Exit, context: ExitContext, outcome: Outcome
) -> None:
    assert classify("node", exit_, context).outcome is outcome


def test_a_node_killed_before_node_was_called_is_described_with_both() -> None:
    context = ExitContext(stopping=True, forced_reason="was killed by a test", awaited=True)
    result = classify("node", Exit(signal=signal.SIGKILL), context)
    assert result.outcome is Outcome.GRACE
    assert "did not call Node()" in result.reason
    assert "`startup_timeout`" in result.reason
    assert result.reason.endswith("it was killed by a test")


def test_an_own_failure_before_node_is_described_by_its_exit() -> None:
    assert classify("node", Exit(code=3), AWAITED).reason == "exited with code 3"


def test_a_cascading_failure_names_the_node_that_caused_it() -> None:
    assert classify("node", Exit(code=1), REFUSED).root_cause == "early"


def test_a_node_that_an_aborted_start_has_kept_from_starting_is_a_consequence() -> None:
    result = never_started("node", "early")
    assert (result.outcome, result.root_cause) == (Outcome.CASCADING, "early")
    assert never_started("node", None).ok


def test_a_failure_keeps_the_nodes_stderr() -> None:
    assert classify("node", Exit(code=1), ExitContext(), ("a", "b")).stderr == ("a", "b")


@pytest.mark.parametrize(
    ("exit_", "context", "reason"),
    [
        (Exit(code=3), ExitContext(), "exited with code 3"),
        (Exit(signal=signal.SIGSEGV), ExitContext(), "was killed by SIGSEGV"),
        (Exit(signal=signal.SIGKILL), FORCED, "had to be killed"),
        (Exit(code=137), HUNG, "had not called dora for 3 s"),
        (Exit(signal=signal.SIGKILL), HUNG, "had not called dora for 3 s"),
        # The daemon had not got to it.
        (Exit(signal=signal.SIGSEGV), HUNG, "was killed by SIGSEGV"),
        (Exit(code=1), HUNG, "exited with code 1"),
    ],
)
def test_the_reason_follows_the_name(exit_: Exit, context: ExitContext, reason: str) -> None:
    assert classify("node", exit_, context).reason == reason


def test_a_foreign_sigkill_is_reported_as_foreign() -> None:
    assert "not sent by dora" in classify("node", Exit(signal=signal.SIGKILL)).reason


@pytest.mark.parametrize(
    "result",
    [
        classify("node", Exit(code=3), ExitContext(), ("one", "two")),
        classify("node", Exit(signal=signal.SIGKILL), FORCED),
        classify("node", Exit(code=1), ABORTED),
        classify("node", Exit(code=0)),
        not_started("node", "no such file: x.py"),
    ],
)
def test_a_result_outlives_a_daemon(result: Result) -> None:
    assert Result.from_json(result.to_json()) == result


def test_of_what_a_node_wrote_at_its_end_only_so_much_is_stored() -> None:
    lines = tuple(f"{number} {'x' * MAX_CHARACTERS}" for number in range(MAX_LINES + 5))
    stored = classify("node", Exit(code=1), stderr=lines).to_json()["stderr"]
    assert len(stored) == MAX_LINES
    assert stored[-1] == lines[-1][:MAX_CHARACTERS]


def test_a_node_that_could_not_be_started_has_failed_without_an_exit() -> None:
    result = not_started("node", "no such file: x.py")
    assert (result.outcome, result.exit) == (Outcome.FAILED, None)
    assert result.reason == "could not be started: no such file: x.py"
