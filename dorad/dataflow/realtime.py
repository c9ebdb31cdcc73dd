"""Read the `realtime` block of a node: scheduling policy, deadline, memory locking."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dorad.dataflow.model import Input, Timer
from dorad.dataflow.settings import Realtime, Scheduling

if TYPE_CHECKING:
    from dorad.dataflow.fields import Fields

PRIORITY = 20
"""The default priority, below the kernel's interrupt threads, which have 50."""

_NS_PER_MS = 1_000_000
_MIN_MS = 0.1
_MAX_MS = 4000.0
"""The kernel's maximum for a deadline or a period."""
_QUEUED = (Scheduling.FIFO, Scheduling.RR)


def read_realtime(node: Fields, inputs: tuple[Input, ...]) -> Realtime | None:
    """Return the block, or None. For `deadline`, defaults follow from the timers in `inputs`.

    The period is that of the fastest timer; without a timer it is the deadline, which then is
    required. The default deadline is the period, the default `runtime_ms` half the deadline.
    """
    block = node.inside("realtime")
    if block is None:
        return None
    policy = block.choice("policy", Scheduling) or Scheduling.OTHER
    priority = block.integer("priority", minimum=1, maximum=99)
    lock_memory = block.flag("lock_memory") or False
    deadline_ns = _milliseconds(block, "deadline_ms")
    runtime_ns = _milliseconds(block, "runtime_ms")
    block.finish()
    _check_policy(block, node, policy)
    if policy is not Scheduling.DEADLINE:
        queued = policy in _QUEUED
        chosen = (priority or PRIORITY) if queued else None
        return Realtime(policy, chosen, lock_memory, deadline_ns)
    timers = [i.source.interval_ns for i in inputs if isinstance(i.source, Timer)]
    period_ns = min(timers, default=deadline_ns)
    due_ns = deadline_ns or period_ns
    if period_ns is None or due_ns is None:
        if not block.has("deadline_ms"):
            block.problems.error_in_name(
                block.name_of("policy"),
                "`deadline` needs a deadline or a timer",
                "write `deadline_ms`, or give the node a timer among its `inputs`",
            )
        return None
    longest = int(_MAX_MS * _NS_PER_MS)
    if not int(_MIN_MS * _NS_PER_MS) <= period_ns <= longest:
        block.problems.error(
            block.name_of("policy"),
            f"the kernel accepts periods from {_MIN_MS:g} to {_MAX_MS:g} ms, "
            f"and the node's fastest timer has {period_ns / _NS_PER_MS:g} ms",
            "write `fifo`",
        )
    if due_ns > period_ns:
        block.problems.error(
            block.name_of("deadline_ms"),
            f"is longer than the period of the node's fastest timer, {period_ns / _NS_PER_MS:g} ms",
        )
    if runtime_ns is not None and runtime_ns > due_ns:
        block.problems.error(
            block.name_of("runtime_ms"), f"is longer than the deadline, {due_ns / _NS_PER_MS:g} ms"
        )
    return Realtime(policy, None, lock_memory, due_ns, runtime_ns or due_ns // 2, period_ns)


def _milliseconds(block: Fields, name: str) -> int | None:
    """Return a time in milliseconds as nanoseconds."""
    value = block.take(name)
    if value is None:
        return None
    data = value.data
    if isinstance(data, int | float) and not isinstance(data, bool) and math.isfinite(data):
        if _MIN_MS <= data <= _MAX_MS:
            return round(data * _NS_PER_MS)
        bounds = f"from {_MIN_MS:g} to {_MAX_MS:g}"
        block.problems.error(value, f"must be {bounds} milliseconds, not {value.describe()}")
    else:
        block.problems.error(value, f"must be a number of milliseconds, not {value.describe()}")
    return None


def _check_policy(block: Fields, node: Fields, policy: Scheduling) -> None:
    """Report keys that do not apply to the policy or exclude it."""
    if block.has("priority") and policy not in _QUEUED:
        block.problems.error_in_name(
            block.name_of("priority"),
            f"`{policy}` has no priority",
            "write `policy: fifo` with it, or remove it",
        )
    if block.has("runtime_ms") and policy is not Scheduling.DEADLINE:
        block.problems.error_in_name(
            block.name_of("runtime_ms"), "only `policy: deadline` has it", "remove it"
        )
    if policy is Scheduling.DEADLINE and node.has("cpu_affinity"):
        block.problems.error(
            block.name_of("policy"),
            "the kernel does not allow CPU affinity with `policy: deadline`",
            "remove `cpu_affinity`, or write `policy: fifo`",
        )
