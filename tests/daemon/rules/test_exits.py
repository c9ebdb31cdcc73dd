import signal

import pytest

from dorad.daemon.rules.exits import History, Outcome, classify, not_started
from dorad.launch.model import Exit

STOPPING = History(stopping=True)
FORCED = History(stopping=True, forced="had to be killed")
SPOILT = History(root_cause="early")


@pytest.mark.parametrize(
    ("exit_", "history", "outcome"),
    [
        (Exit(code=0), History(), Outcome.OK),
        (Exit(code=0), SPOILT, Outcome.OK),
        (Exit(code=0), FORCED, Outcome.OK),
        (Exit(code=1), History(), Outcome.FAILED),
        (Exit(code=1), STOPPING, Outcome.FAILED),
        (Exit(signal=signal.SIGTERM), History(), Outcome.FAILED),
        (Exit(signal=signal.SIGTERM), STOPPING, Outcome.OK),
        (Exit(signal=signal.SIGINT), STOPPING, Outcome.OK),
        (Exit(code=143), STOPPING, Outcome.OK),
        (Exit(code=130), STOPPING, Outcome.OK),
        (Exit(code=143), History(), Outcome.FAILED),
        (Exit(signal=signal.SIGSEGV), STOPPING, Outcome.FAILED),
        (Exit(signal=signal.SIGKILL), STOPPING, Outcome.FAILED),
        (Exit(signal=signal.SIGKILL), FORCED, Outcome.GRACE),
        (Exit(code=137), FORCED, Outcome.GRACE),
        (Exit(signal=signal.SIGTERM), FORCED, Outcome.GRACE),
        (Exit(code=1), FORCED, Outcome.FAILED),
        (Exit(code=1), SPOILT, Outcome.CASCADING),
        (Exit(signal=signal.SIGTERM), SPOILT, Outcome.CASCADING),
        (
            Exit(signal=signal.SIGTERM),
            History(root_cause="early", stopping=True),
            Outcome.OK,
        ),
    ],
)
def test_an_exit_is_judged_by_what_the_daemon_did(
    exit_: Exit, history: History, outcome: Outcome
) -> None:
    assert classify("node", exit_, history).outcome is outcome


def test_a_cascading_failure_names_the_node_that_caused_it() -> None:
    assert classify("node", Exit(code=1), SPOILT).root_cause == "early"


def test_a_failure_keeps_what_the_node_wrote() -> None:
    assert classify("node", Exit(code=1), History(), ("a", "b")).stderr == ("a", "b")


@pytest.mark.parametrize(
    ("exit_", "history", "reason"),
    [
        (Exit(code=3), History(), "exited with code 3"),
        (Exit(signal=signal.SIGSEGV), History(), "was killed by SIGSEGV"),
        (Exit(signal=signal.SIGKILL), FORCED, "had to be killed"),
    ],
)
def test_the_reason_goes_on_after_the_name(exit_: Exit, history: History, reason: str) -> None:
    assert classify("node", exit_, history).reason == reason


def test_a_sigkill_from_elsewhere_is_said_not_to_be_ours() -> None:
    assert "not sent by dora" in classify("node", Exit(signal=signal.SIGKILL)).reason


def test_a_node_that_could_not_be_started_has_failed_without_an_exit() -> None:
    result = not_started("node", "no such file: x.py")
    assert (result.outcome, result.exit) == (Outcome.FAILED, None)
    assert result.reason == "could not be started: no such file: x.py"
