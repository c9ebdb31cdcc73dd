"""The `realtime` block of a node."""

import pytest

from dorad.dataflow.settings import Realtime, Scheduling
from tests.dataflow.reading import error, path_node, path_node_text, problem


def realtime(keys: str, others: str = "") -> Realtime | None:
    return path_node(f"realtime: {{{keys}}}\n{others}").realtime


def test_a_node_without_the_key_has_no_priority() -> None:
    assert path_node("").realtime is None
    assert path_node("realtime:").realtime is None


def test_a_queue_has_a_priority() -> None:
    assert realtime("policy: fifo, priority: 80, lock_memory: true, deadline_ms: 0.5") == Realtime(
        Scheduling.FIFO, 80, lock_memory=True, deadline_ns=500_000
    )
    assert realtime("policy: rr") == Realtime(Scheduling.RR, 20)


def test_memory_can_be_locked_without_a_policy() -> None:
    assert realtime("lock_memory: true") == Realtime(lock_memory=True)


def test_a_deadline_follows_from_the_fastest_timer() -> None:
    timers = "inputs: {slow: dora/timer/secs/1, fast: dora/timer/millis/2}"
    assert realtime("policy: deadline", timers) == Realtime(
        Scheduling.DEADLINE,
        deadline_ns=2_000_000,
        runtime_ns=1_000_000,
        period_ns=2_000_000,
    )


def test_a_deadline_is_its_own_period_without_a_timer() -> None:
    assert realtime("policy: deadline, deadline_ms: 10, runtime_ms: 2") == Realtime(
        Scheduling.DEADLINE,
        deadline_ns=10_000_000,
        runtime_ns=2_000_000,
        period_ns=10_000_000,
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("realtime: fifo", "realtime: must be a mapping, not `fifo`"),
        (
            "realtime: {policy: fif}",
            (
                "realtime.policy: must be one of fifo, rr, deadline, other, not `fif`"
                " (did you mean `fifo`?)"
            ),
        ),
        (
            "realtime: {policy: fifo, priority: 100}",
            "realtime.priority: must be a whole number from 1 to 99, not 100",
        ),
        (
            "realtime: {policy: other, priority: 1}",
            (
                "realtime.priority: `other` has no priority"
                " (write `policy: fifo` with it, or remove it)"
            ),
        ),
        (
            "realtime: {policy: deadline}",
            (
                "realtime.policy: `deadline` needs a deadline or a timer"
                " (write `deadline_ms`, or give the node a timer among its `inputs`)"
            ),
        ),
        (
            "realtime: {policy: deadline, deadline_ms: 5, runtime_ms: 6}",
            "realtime.runtime_ms: is longer than the deadline, 5 ms",
        ),
        (
            "realtime: {policy: deadline, deadline_ms: 5}\ninputs: {t: dora/timer/millis/2}",
            "realtime.deadline_ms: is longer than the period of the node's fastest timer, 2 ms",
        ),
        (
            "realtime: {policy: deadline}\ninputs: {t: dora/timer/secs/5}",
            (
                "realtime.policy: the kernel accepts periods from 0.1 to 4000 ms, and the node's"
                " fastest timer has 5000 ms (write `fifo`)"
            ),
        ),
        (
            "realtime: {policy: deadline, deadline_ms: 5}\ncpu_affinity: [1]",
            (
                "realtime.policy: the kernel does not allow CPU affinity with `policy: deadline`"
                " (remove `cpu_affinity`, or write `policy: fifo`)"
            ),
        ),
        (
            "realtime: {deadline_ms: 0}",
            "realtime.deadline_ms: must be from 0.1 to 4000 milliseconds, not 0",
        ),
        (
            "realtime: {deadline_ms: soon}",
            "realtime.deadline_ms: must be a number of milliseconds, not `soon`",
        ),
        (
            "realtime: {policy: fifo, runtime_ms: 1}",
            "realtime.runtime_ms: only `policy: deadline` has it (remove it)",
        ),
    ],
)
def test_errors_have_messages(keys: str, expected: str) -> None:
    assert error(keys) == expected


def test_a_mistake_has_its_place() -> None:
    found = problem(path_node_text("realtime:\n  policy: fifo\n  prio: 5"))
    assert (found.line, found.column, found.message) == (6, 7, "unknown key `prio`")
