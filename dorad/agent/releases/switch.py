"""A switch to a release: the change, its probation, and the return. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.agent.releases.model import MAX_FAILED, Baseline, Failed
from dorad.agent.releases.steps import ENDED, apply, end_of, enter, is_stopping

if TYPE_CHECKING:
    from dorad.agent.releases.model import Health, Observation, ReleaseRecord

MAX_SWITCH_BOOTS = 3
"""How often a switch is repeated after restarts of the machine; then the robot reverts."""
MAX_PROBATION_BOOTS = 1
MAX_CHANGES = 3
"""Attempts to change a running dataflow back; then it is stopped and started."""
REVERT_RETRY_S = 2.0
STUCK_RETRY_S = 30.0


def switching(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record while the daemon changes the dataflow."""
    if record.boot != seen.boot:
        if record.tries >= MAX_SWITCH_BOOTS:
            why = f"the machine was restarted {record.tries + 1} times during the switch"
            return _fail(record, seen, why)
        record = replace(record, boot=seen.boot, switched=seen.now, tries=record.tries + 1)
    if record.halting:
        if is_stopping(record, seen):
            return _in_time(record, seen, "the old dataflow does not stop")
        record = replace(record, halting=False, step=record.step + 1)
    share = seen.share
    if share is None or share.generation != record.step:
        return _in_time(record, seen, "the daemon has not begun")
    if share.status in ENDED:
        return _fail(record, seen, end_of(share))
    if share.status == "running" and share.reason:
        return _fail(record, seen, share.reason)
    if share.status == "running":
        return enter(replace(record, tries=0), "probation", "")
    return _in_time(record, seen, share.reason or f"the dataflow is {share.status}")


def probation(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record while the health of the new revision is checked."""
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
    if share is not None and share.generation == record.step and share.status in ENDED:
        return _fail(record, seen, end_of(share))
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


def reverting(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record during a return, or after its failure."""
    if record.phase == "stuck" and record.applied != record.confirmed:
        return record  # `auto_revert` is off
    if record.boot != seen.boot:
        record = replace(record, boot=seen.boot, switched=seen.now, tries=0, retry_at=0.0)
    if record.halting and record.applied is not None:
        if is_stopping(record, seen):
            return _stuck_in_time(record, seen, "the dataflow does not stop")
        record = replace(record, halting=False, step=record.step + 1)
    share = seen.share
    if share is None or share.generation != record.step:
        return _stuck_in_time(record, seen, "the daemon has not begun")
    if record.applied is None and share.status in ENDED:
        return _reverted(record)
    if record.applied is not None and share.status == "running" and not share.reason:
        return _reverted(record)
    failed = share.status in ENDED or (share.status == "running" and share.reason)
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


def go_back(record: ReleaseRecord, seen: Observation, reason: str) -> ReleaseRecord:
    """Return the record that begins to revert to the confirmed revision."""
    record = replace(record, boot=seen.boot, switched=seen.now, tries=0, retry_at=0.0)
    return enter(apply(record, record.confirmed, seen), "reverting", reason)


def _confirm(record: ReleaseRecord, health: Health) -> ReleaseRecord:
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
    return enter(record, "confirmed", "")


def _fail(
    record: ReleaseRecord, seen: Observation, reason: str, *, blame: bool = True
) -> ReleaseRecord:
    """Return the record of a revision that is not confirmed; `blame` records the failure."""
    target = record.target
    if blame and target is not None:
        known = [each for each in record.failed if each.digest != target.digest]
        failed = [*known, Failed(target.digest, reason[:1000])][-MAX_FAILED:]
        record = replace(record, failed=failed)
    if not record.order.auto_revert and record.phase == "probation":
        return enter(replace(record, switched=seen.now), "stuck", f"{reason}; it stays, as ordered")
    return go_back(record, seen, reason)


def _in_time(record: ReleaseRecord, seen: Observation, reason: str) -> ReleaseRecord:
    """Wait for a switch, or revert if it takes too long."""
    deadline = record.order.rules.healthy_deadline
    if seen.now - record.switched < deadline:
        return record if record.reason == reason else replace(record, reason=reason)
    return _fail(record, seen, f"not running after {deadline:g} s: {reason}")


def _reverted(record: ReleaseRecord) -> ReleaseRecord:
    """Return the record once the confirmed revision runs again."""
    if record.confirmed is not None and record.target == record.confirmed.revision:
        return enter(record, "confirmed", "")
    reason = record.reason.removeprefix("cannot go back: ")
    return enter(record, "reverted", reason)


def _stuck_in_time(record: ReleaseRecord, seen: Observation, reason: str) -> ReleaseRecord:
    if record.phase == "stuck" or seen.now - record.switched < record.order.rules.healthy_deadline:
        return record
    return enter(record, "stuck", f"cannot go back: {reason}; before that: {record.reason}")
