"""A node with many inputs that open, close and take turns; it reads its own configuration."""

from itertools import groupby

import pytest

from tests.harness.process import Outcome

from .conftest import Case
from .tap import Tap

SECONDS = 10


@pytest.fixture(scope="module")
def outcome(run_case: Case) -> Outcome:
    return run_case("selector", "selector.yml", stop_after=SECONDS)


@pytest.fixture(scope="module")
def tap(outcome: Outcome) -> Tap:
    return Tap(outcome.folder)


def test_it_ends_with_0(outcome: Outcome) -> None:
    outcome.expect(0)


def test_the_selection_follows_configuration_message_and_close(tap: Tap) -> None:
    assert tap.values("selected") == [["policy"], ["vr"], ["policy"]]


def test_at_least_20_positions_are_forwarded(tap: Tap) -> None:
    assert len(tap.inputs("right")) >= 20


def test_forwarded_positions_are_8_floats(tap: Tap) -> None:
    assert {(e["arrow"], e["len"]) for e in tap.inputs("right")} == {("float", 8)}


def test_forwarded_positions_keep_the_first_senders_timestamp(tap: Tap) -> None:
    for event in tap.inputs("right"):
        assert set(event["meta"]) == {"timestamp", "selected_source"}
        assert isinstance(event["meta"]["timestamp"], int)


def test_all_but_a_few_positions_come_from_policy(tap: Tap) -> None:
    sources = [event["meta"]["selected_source"] for event in tap.inputs("right")]
    others = [source for source in sources if source != "policy"]
    assert set(others) <= {"vr"}
    # How long vr stays selected is how long `enable` takes to end after its message.
    assert len(others) <= len(sources) / 3, f"{len(others)} of {len(sources)} come from vr"
    stretches = [source for source, _ in groupby(sources)]
    assert stretches.count("vr") <= 1, f"vr was selected more than once: {stretches}"


@pytest.mark.parametrize(
    "line",
    ["ignore inputs of other sources: ['ker_right']", "vr_enabled is closed: select policy"],
)
def test_what_the_selector_prints_is_shown(outcome: Outcome, line: str) -> None:
    assert line in outcome.output, outcome.output


def test_the_environment_chooses_the_sources(run_case: Case) -> None:
    outcome = run_case("selector", "selector.yml", stop_after=SECONDS, env={"TELEOP": "nope"})
    outcome.expect(1)
    assert "ValueError: source has no input: nope" in outcome.output, outcome.output
