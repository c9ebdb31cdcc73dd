"""The state machine of a release on a robot: pure functions of its record and observations.

`pending → staging → staged → switching → probation → confirmed`, or `reverting → reverted | stuck`.
The record is stored after each step, before anything is done for it, so that each phase goes on
after a power cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.agent.releases.model import (
    MAX_FAILED,
    Applied,
    Baseline,
    Failed,
    Record,
    revision_of,
)
from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseState

if TYPE_CHECKING:
    from typing import Any

    from dorad.agent.releases.model import Health, Seen, Waiting
    from dorad.control.messages.releases import ReleaseOrder, ReleasePhase

CONTACT_S = 60.0
"""Contact to the coordinator that is not older than this, before a switch, is expected after it."""
MAX_SWITCH_BOOTS = 3
"""How often a switch is redone after the machine was restarted; then the robot goes back."""
MAX_PROBATION_BOOTS = 1
MAX_CHANGES = 3
"""Attempts to change a running dataflow back; then it is stopped and started."""
REVERT_RETRY_S = 2.0
STUCK_RETRY_S = 30.0

_IN_SWITCH = ("switching", "probation", "reverting")
_ENDED = ("stopped", "finished", "failed")


def take_order(record: Record | None, order: ReleaseOrder, new: Record) -> Record:
    """Return the record after an order; `new` is the one for a dataflow that was unknown.

    Raises:
        ControlError: with code `conflict`: the order is older than that of the record, or differs
            from it under the same number.
    """
    if record is None:
        return new
    present = record.next or record.order
    version = (order.epoch, order.generation)
    if version < record.version:
        raise ControlError(
            "conflict",
            f"the release of {order.dataflow} here is of epoch {record.version[0]}, generation "
            f"{record.version[1]}; epoch {order.epoch}, generation {order.generation} is older",
        )
    if _content(order) != _content(present):
        if order.generation == present.generation:
            raise ControlError(
                "conflict",
                f"generation {order.generation} of {order.dataflow} is another release, other "
                "parameters, or the opposite here",
            )
        return _take_new(record, order)
    again = order.retry and not present.retry
    if record.next is not None:
        return replace(record, next=order)
    if order.generation != present.generation or (again and record.phase in ("reverted", "stuck")):
        return _take_new(record, order)
    if order.switch and not present.switch:
        record = replace(record, busy_since=None, gave_up=False)
    return replace(record, order=order)


def _take_new(record: Record, order: ReleaseOrder) -> Record:
    same = record.order.release is not None and order.release is not None
    same = same and revision_of(order) == record.target and order.enabled == record.order.enabled
    if record.phase in ("switching", "probation") and same:
        # Another rollout of the same content: the switch continues under the new number.
        return replace(record, order=order, next=None)
    if record.phase in _IN_SWITCH and order.release is not None and order.enabled:
        return replace(record, next=order)
    if record.phase == "confirmed" and same and not record.reason:
        return replace(record, order=order)
    stops = order.release is None or not order.enabled
    if stops and record.phase in (*_IN_SWITCH, "stuck"):
        # The next order must not return to a revision that was not confirmed.
        record = replace(record, applied=record.confirmed, halting=True, step=record.step + 1)
    if order.retry and order.release is not None:
        digest = revision_of(order).digest
        record = replace(record, failed=[each for each in record.failed if each.digest != digest])
    return replace(
        record, order=order, next=None, phase="pending", reason="", waiting="", refused=False,
        busy_since=None, gave_up=False, evidence=[], restarted=[],
    )  # fmt: skip


def _content(order: ReleaseOrder) -> tuple[str | None, dict[str, Any], bool]:
    return order.release, order.params, order.enabled


def forget_epoch(record: Record) -> Record:
    """Return the record for the coordinators of another fleet, whose epochs start again."""
    following = None if record.next is None else replace(record.next, epoch=0)
    return replace(record, order=replace(record.order, epoch=0), next=following)


def decide(record: Record, seen: Seen) -> Record:
    """Return the record after an observation: the same one if nothing changes."""
    after = _decide(record, seen)
    return after if after == record or after.phase == record.phase else replace(
        after, since=seen.wall
    )  # fmt: skip


def _decide(record: Record, seen: Seen) -> Record:
    if record.next is not None and record.phase in ("switching", "probation"):
        if record.confirmed is not None and revision_of(record.next) == record.confirmed.revision:
            # The rollout was aborted, or undone.
            following = replace(record, order=record.next, next=None)
            return _go_back(following, seen, "another order has arrived")
    elif record.next is not None and record.phase not in _IN_SWITCH:
        return _take_new(record, record.next)
    if record.order.release is None or not record.order.enabled:
        return _stop(record, seen)
    match record.phase:
        case "switching":
            return _switching(record, seen)
        case "probation":
            return _probation(record, seen)
        case "reverting" | "stuck":
            return _reverting(record, seen)
        case "confirmed" | "reverted":
            return _resting(record, seen)
        case _:
            return _preparing(record, seen)


def forgettable(record: Record, seen: Seen) -> bool:
    """Return True if a dataflow whose release was removed has stopped."""
    return record.order.release is None and (
        seen.share is None or (seen.share.generation == record.step and seen.share.status in _ENDED)
    )


def _stop(record: Record, seen: Seen) -> Record:
    """Return the record of a dataflow that is ordered not to run."""
    if record.applied is not None and not record.halting:
        record = replace(record, step=record.step + 1, halting=True)
    if record.order.release is None:
        return record
    if record.confirmed is not None and record.target == record.confirmed.revision:
        return _set(record, "confirmed", "the dataflow is disabled")
    if seen.files == "staged":
        return _set(record, "staged", "the dataflow is disabled", waiting="switch")
    return _preparing(record, seen)


def _resting(record: Record, seen: Seen) -> Record:
    """Return the record while the confirmed revision runs."""
    record = _learn(record, seen.learned)
    if record.phase == "reverted":
        return record
    share = seen.share
    reason = ""
    if share is not None and _has_ended(record, seen):
        reason = f"the dataflow has {share.status}" + (share.reason and f": {share.reason}")
    return record if record.reason == reason else replace(record, reason=reason)


def _learn(record: Record, rates: dict[str, float]) -> Record:
    """Return the record with the rates of outputs whose rate was not certain yet."""
    before = record.baseline
    new = {name: rate for name, rate in rates.items() if name not in before.settled}
    if not new:
        return record
    settled = sorted({*before.settled, *new})
    return replace(record, baseline=replace(before, rates=before.rates | new, settled=settled))


def _preparing(record: Record, seen: Seen) -> Record:
    """Return the record of a release that is being received, staged, or waits for its switch."""
    if record.halting and record.order.enabled and record.applied is not None:
        if _is_stopping(record, seen):
            return record
        record = replace(record, step=record.step + 1, halting=False)
    target = record.target
    assert target is not None
    confirmed = None if record.confirmed is None else record.confirmed.revision
    # One that has ended, perhaps by `dora stop`, is started again like another release.
    if target == confirmed == _running(record) and not _has_ended(record, seen):
        return _set(record, "confirmed", "")
    if known := next((each for each in record.failed if each.digest == target.digest), None):
        why = f"it has failed on this robot before: {known.reason}"
        return _set(record, record.phase, f"{why}; order it with `--retry`", refused=True)
    if seen.refusal:
        return _set(record, "pending", seen.refusal, refused=True)
    if seen.files == "missing":
        return _set(record, "pending", seen.trouble, waiting="files")
    if seen.files == "received" or seen.plan is None:
        return _set(record, "staging", seen.trouble)
    if seen.plan.sequence < record.sequence and not record.order.allow_lower:
        return _set(
            record,
            "pending",
            f"its sequence {seen.plan.sequence} is below {record.sequence}, the highest that was "
            "confirmed here; the order must allow that",
            refused=True,
        )
    if not record.order.switch:
        return _set(record, "staged", "", waiting="switch")
    return _begin(record, seen)


def _begin(record: Record, seen: Seen) -> Record:
    """Begin the switch, unless the robot is busy."""
    order = record.order
    if seen.notices is None or (seen.share is not None and seen.share.status == "stopping"):
        reason = "the daemon cannot be asked, or stops the dataflow"
        return _set(record, "staged", reason, waiting="switch")
    if record.gave_up:
        return record
    if seen.busy and order.busy == "wait":
        since = record.busy_since
        if since is None or record.boot != seen.boot:
            since = seen.now
        over = seen.now - since >= order.busy_max
        record = replace(record, boot=seen.boot, busy_since=since, gave_up=over)
        late = f"still busy after {order.busy_max:g} s: " if over else ""
        return _set(record, "staged", f"{late}{seen.busy}", waiting="busy")
    assert seen.plan is not None
    contact = seen.contact is not None and seen.now - seen.contact <= CONTACT_S
    record = replace(
        record,
        boot=seen.boot,
        switched=seen.now,
        tries=0,
        contact=contact,
        busy_since=None,
        restarted=seen.plan.replaced,
        evidence=[],
        baseline=replace(record.baseline, notices=seen.notices),
        switched_sequence=seen.plan.sequence,
    )
    assert record.target is not None
    applied = Applied(record.target, seen.plan.nodes)
    return _set(_apply(record, applied, seen), "switching", "")


def _switching(record: Record, seen: Seen) -> Record:
    if record.boot != seen.boot:
        if record.tries >= MAX_SWITCH_BOOTS:
            return _fail(record, seen, f"the machine was restarted {record.tries + 1} times in it")
        record = replace(record, boot=seen.boot, switched=seen.now, tries=record.tries + 1)
    if record.halting:
        if _is_stopping(record, seen):
            return _in_time(record, seen, "the old dataflow does not stop")
        record = replace(record, halting=False, step=record.step + 1)
    share = seen.share
    if share is None or share.generation != record.step:
        return _in_time(record, seen, "the daemon has not begun")
    if share.status in _ENDED:
        return _fail(record, seen, f"the dataflow has {share.status}: {share.reason}")
    if share.status == "running" and share.reason:
        return _fail(record, seen, share.reason)
    if share.status == "running":
        return _set(replace(record, tries=0), "probation", "")
    return _in_time(record, seen, share.reason or f"the dataflow is {share.status}")


def _in_time(record: Record, seen: Seen, reason: str) -> Record:
    """Wait for a switch, or go back if it takes too long."""
    deadline = record.order.rules.healthy_deadline
    if seen.now - record.switched < deadline:
        return record if record.reason == reason else replace(record, reason=reason)
    return _fail(record, seen, f"not running after {deadline:g} s: {reason}")


def _probation(record: Record, seen: Seen) -> Record:
    rules = record.order.rules
    if record.boot != seen.boot:
        if record.tries >= MAX_PROBATION_BOOTS:
            return _fail(record, seen, "the machine was restarted twice before it was confirmed")
        return replace(record, boot=seen.boot, switched=seen.now, tries=record.tries + 1)
    elapsed = seen.now - record.switched
    contact = not record.contact or (seen.contact is not None and seen.contact > record.switched)
    share, health = seen.share, seen.health
    if health is not None:
        record = replace(record, evidence=health.evidence)
    if share is not None and share.generation == record.step and share.status in _ENDED:
        why = share.reason or "its nodes have ended"
        return _fail(record, seen, f"the dataflow has {share.status}: {why}")
    if health is not None and health.fatal:
        return _fail(record, seen, health.fatal)
    healthy = health is not None and health.healthy
    if healthy and contact:
        assert health is not None
        return _confirm(record, health)
    if not contact and elapsed >= rules.confirm_deadline:
        why = f"no contact to the coordinator for {rules.confirm_deadline:g} s"
        return _fail(record, seen, why, blame=False)
    if not healthy and elapsed >= rules.healthy_deadline:
        bad = [f"{each.check}: {each.text}" for each in record.evidence if not each.ok]
        why = "; ".join(bad[:3]) or "it did not stay healthy for long enough"
        return _fail(record, seen, f"not healthy after {rules.healthy_deadline:g} s: {why}")
    reason = "it waits for contact to the coordinator" if healthy else ""
    return record if record.reason == reason else replace(record, reason=reason)


def _confirm(record: Record, health: Health) -> Record:
    assert record.applied is not None
    before = record.confirmed
    previous = record.previous
    if before is not None and before.revision != record.applied.revision:
        previous = before.revision
    baseline = Baseline(
        rates=health.rates, nodes=health.nodes, misses=health.misses, settled=health.settled
    )
    record = replace(
        record,
        confirmed=record.applied,
        previous=previous,
        baseline=baseline,
        sequence=max(record.sequence, record.switched_sequence),
    )
    return _set(record, "confirmed", "")


def _fail(record: Record, seen: Seen, reason: str, *, blame: bool = True) -> Record:
    """Return the record of a revision that is not confirmed; `blame` records the failure."""
    target = record.target
    if blame and target is not None:
        known = [each for each in record.failed if each.digest != target.digest]
        failed = [*known, Failed(target.digest, reason[:1000])][-MAX_FAILED:]
        record = replace(record, failed=failed)
    if not record.order.auto_revert and record.phase == "probation":
        return _set(replace(record, switched=seen.now), "stuck", f"{reason}; it stays, as ordered")
    return _go_back(record, seen, reason)


def _go_back(record: Record, seen: Seen, reason: str) -> Record:
    record = replace(record, boot=seen.boot, switched=seen.now, tries=0, retry_at=0.0)
    return _set(_apply(record, record.confirmed, seen), "reverting", reason)


def _reverting(record: Record, seen: Seen) -> Record:
    if record.phase == "stuck" and record.applied != record.confirmed:
        return record  # `auto_revert` is off
    if record.boot != seen.boot:
        record = replace(record, boot=seen.boot, switched=seen.now, tries=0, retry_at=0.0)
    if record.halting and record.applied is not None:
        if _is_stopping(record, seen):
            return _stuck_in_time(record, seen, "the dataflow does not stop")
        record = replace(record, halting=False, step=record.step + 1)
    share = seen.share
    if share is None or share.generation != record.step:
        return _stuck_in_time(record, seen, "the daemon has not begun")
    if record.applied is None and share.status in _ENDED:
        return _reverted(record)
    if record.applied is not None and share.status == "running" and not share.reason:
        return _reverted(record)
    failed = share.status in _ENDED or (share.status == "running" and share.reason)
    if failed and record.applied is not None and seen.now >= record.retry_at:
        tries = record.tries + 1
        pause = STUCK_RETRY_S if record.phase == "stuck" else REVERT_RETRY_S
        record = replace(
            record,
            tries=tries,
            retry_at=seen.now + pause,
            step=record.step + 1,
            halting=tries % MAX_CHANGES == 0 and share.status == "running",
        )
    return _stuck_in_time(record, seen, share.reason or f"the dataflow is {share.status}")


def _reverted(record: Record) -> Record:
    """Return the record once the confirmed revision runs again."""
    if record.confirmed is not None and record.target == record.confirmed.revision:
        return _set(record, "confirmed", "")
    reason = record.reason.removeprefix("cannot go back: ")
    return _set(record, "reverted", reason)


def _stuck_in_time(record: Record, seen: Seen, reason: str) -> Record:
    if record.phase == "stuck" or seen.now - record.switched < record.order.rules.healthy_deadline:
        return record
    return _set(record, "stuck", f"cannot go back: {reason}; before that: {record.reason}")


def _apply(record: Record, applied: Applied | None, seen: Seen) -> Record:
    """Return the record with the daemon's new order.

    A dataflow that has not started completely cannot be changed: it is stopped first.
    """
    share = seen.share
    unstarted = share is not None and share.status in ("starting", "ready")
    halting = applied is None or unstarted
    return replace(record, applied=applied, step=record.step + 1, halting=halting)


def _is_stopping(record: Record, seen: Seen) -> bool:
    return seen.share is not None and not _has_ended(record, seen)


def _has_ended(record: Record, seen: Seen) -> bool:
    """Return True if the run of the daemon's last order has ended."""
    share = seen.share
    return share is not None and share.generation == record.step and share.status in _ENDED


def _running(record: Record) -> object:
    return None if record.applied is None else record.applied.revision


def _set(
    record: Record,
    phase: ReleasePhase,
    reason: str,
    *,
    waiting: Waiting = "",
    refused: bool = False,
) -> Record:
    new = (phase, reason, waiting, refused)
    if new == (record.phase, record.reason, record.waiting, record.refused):
        return record
    return replace(record, phase=phase, reason=reason, waiting=waiting, refused=refused)


def state_of(record: Record, seen: Seen | None) -> ReleaseState:
    """Return what to report."""
    share = None if seen is None else seen.share
    runs = record.applied is not None and not record.halting
    runs = runs and (share is None or share.status not in _ENDED)
    return ReleaseState(
        dataflow=record.order.dataflow,
        epoch=record.order.epoch,
        generation=record.order.generation,
        phase=record.phase,
        since=record.since,
        release=record.order.release or "",
        running=record.applied.revision.release if runs and record.applied is not None else "",
        confirmed="" if record.confirmed is None else record.confirmed.revision.release,
        previous="" if record.previous is None else record.previous.release,
        sequence=record.sequence,
        rollout=record.order.rollout,
        reason=record.reason,
        waiting=record.waiting,
        refused=record.refused,
        evidence=record.evidence,
        leases=[] if seen is None else seen.leases,
        restarted=record.restarted,
    )
