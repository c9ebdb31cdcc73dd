"""The steps and times of the stop ladder."""

from dorad.daemon.rules.ladder import Step, StopStep, ladder


def test_the_default_ladder_ends_after_fifteen_seconds() -> None:
    assert ladder() == (
        StopStep(0, Step.EVENT),
        StopStep(10, Step.TERMINATE),
        StopStep(15, Step.KILL),
    )


def test_sigkill_follows_half_a_grace_after_sigterm() -> None:
    assert [step.after for step in ladder(4)] == [0, 4, 6]


def test_a_grace_of_zero_takes_all_steps_at_once() -> None:
    assert [step.after for step in ladder(0)] == [0, 0, 0]
