"""Three hub nodes that send, repeat and compare; and a failure that must be seen."""

import pytest

from tests.harness.process import Outcome

from .conftest import Case

FAILURE = ("fail", "exited with code", "killed", "signal")
SECONDS = 20
"""When a run is stopped that does not end by itself."""


@pytest.fixture(scope="module")
def good(run_case: Case) -> Outcome:
    return run_case("echo", "good.yml", stop_after=SECONDS)


@pytest.fixture(scope="module")
def bad(run_case: Case) -> Outcome:
    return run_case("echo", "bad.yml", stop_after=SECONDS)


def test_the_good_dataflow_ends_with_0(good: Outcome) -> None:
    good.expect(0)


def test_the_good_dataflow_ends_by_itself(good: Outcome) -> None:
    assert good.seconds < SECONDS, f"took {good.seconds:.1f} s; it printed:\n{good.output}"


@pytest.mark.parametrize("node", ["numbers", "words", "echo", "check-n", "check-w"])
def test_no_node_of_the_good_dataflow_is_reported_as_failed(good: Outcome, node: str) -> None:
    assert not good.lines_about(node, FAILURE), f"{node} ended badly:\n{good.output}"


def test_the_bad_dataflow_ends_with_1(bad: Outcome) -> None:
    bad.expect(1)


def test_the_bad_dataflow_ends_by_itself(bad: Outcome) -> None:
    assert bad.seconds < SECONDS, f"took {bad.seconds:.1f} s; it printed:\n{bad.output}"


def test_the_output_reports_that_check_exited_with_code_1(bad: Outcome) -> None:
    text = bad.lines_about("check", ["exited with code 1"])
    assert text, f"no line says that `check` exited with code 1:\n{bad.output}"


def test_the_output_shows_the_assertion_from_stderr(bad: Outcome) -> None:
    assert "AssertionError: Expected [" in bad.output, f"stderr is not shown:\n{bad.output}"


def test_the_failure_report_at_the_end_repeats_the_assertion(bad: Outcome) -> None:
    report = bad.output[bad.output.rindex("exited with code 1") :]
    assert "AssertionError: Expected [" in report, f"the report lacks stderr:\n{bad.output}"


@pytest.mark.parametrize("node", ["numbers", "echo"])
def test_the_other_nodes_of_the_bad_dataflow_end_well(bad: Outcome, node: str) -> None:
    assert not bad.lines_about(node, FAILURE), f"{node} ended badly:\n{bad.output}"
