"""The effect of an order on the record of a dataflow. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.agent.releases.model import MAX_FAILED, Failed, Revision, revision_of
from dorad.agent.releases.steps import IN_SWITCH
from dorad.control.errors import ControlError

MAX_REASON = 1000
"""Characters of the reason why a revision was undone."""

if TYPE_CHECKING:
    from typing import Any

    from dorad.agent.releases.model import ReleaseRecord
    from dorad.control.messages.releases import Group, ReleaseOrder


def take_order(
    record: ReleaseRecord | None, order: ReleaseOrder, new: ReleaseRecord
) -> ReleaseRecord:
    """Return the record after an order; `new` is the one for a dataflow that was unknown.

    Raises:
        ControlError: with code `conflict`: the order is older than that of the record, or differs
            from it under the same number.
    """
    if record is None:
        return _with_rejections(new, order)
    return _with_rejections(_take(record, order), order)


def _take(record: ReleaseRecord, order: ReleaseOrder) -> ReleaseRecord:
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
                f"generation {order.generation} of {order.dataflow} has another release, other "
                "parameters, other machines, or the opposite `enabled` here",
            )
        return take_new(record, order)
    if order.generation == present.generation and present.committed:
        order = replace(order, committed=True)  # that is decided once
    again = order.retry and not present.retry
    if record.next is not None:
        return replace(record, next=order)
    if _goes_forward(record, order):
        if record.phase == "reverting":
            return replace(record, order=order, next=order)
        return take_new(record, order)
    if order.generation != present.generation or (again and record.phase in ("reverted", "stuck")):
        return take_new(record, order)
    if order.switch and not present.switch:
        record = replace(record, busy_since=None, gave_up=False)
    return replace(record, order=order)


def take_new(record: ReleaseRecord, order: ReleaseOrder) -> ReleaseRecord:
    """Return the record after an order for something else, which may have to wait."""
    same = record.order.release is not None and order.release is not None
    same = same and revision_of(order) == record.target and order.enabled == record.order.enabled
    if record.phase in ("switching", "probation") and same:
        # Another rollout of the same content: the switch continues under the new number.
        return replace(record, order=order, next=None)
    if record.phase in IN_SWITCH and order.release is not None and order.enabled:
        return replace(record, next=order)
    if order.withdraw and same and record.phase in ("confirmed", "reverted", "stuck"):
        return replace(record, order=order, next=None)
    if record.phase == "confirmed" and same and (order.stay or not (order.switch or record.reason)):
        return replace(record, order=order)
    stops = order.release is None or not order.enabled
    if stops and record.phase in (*IN_SWITCH, "stuck"):
        # The next order must not return to a revision that was not confirmed.
        record = replace(record, applied=record.confirmed, halting=True, step=record.step + 1)
    if order.retry and order.release is not None:
        digest = revision_of(order).digest
        record = replace(record, failed=[each for each in record.failed if each.digest != digest])
    return replace(
        record, order=order, next=None, phase="pending", reason="", waiting="", refused=False,
        busy_since=None, gave_up=False, evidence=[], restarted=[],
    )  # fmt: skip


def _goes_forward(record: ReleaseRecord, order: ReleaseOrder) -> bool:
    """Return True if the group runs the revision of an order, and this machine has left it.

    It has not failed here: this machine has left it only because it heard nothing of the others.
    """
    if order.group is None or not order.committed:
        return False
    left = record.phase in ("reverting", "reverted", "stuck")
    same = order.generation == record.order.generation
    return left and same and record.failure_of(revision_of(order)) is None


def _with_rejections(record: ReleaseRecord, order: ReleaseOrder) -> ReleaseRecord:
    """Return the record that remembers what was undone, until it is ordered again."""
    found = {each.digest: each for each in record.rejected}
    for each in order.rejects:
        revision = Revision(each.release, each.params, each.group)
        digest = each.release if each.whole else revision.digest
        found[digest] = Failed(digest, each.reason[:MAX_REASON] or "undone")
    if order.release is not None and not order.stay:
        for name in revision_of(order).names:
            found.pop(name, None)
    rejected = [*found.values()][-MAX_FAILED:]
    return record if rejected == record.rejected else replace(record, rejected=rejected)


def forget_epoch(record: ReleaseRecord) -> ReleaseRecord:
    """Return the record for the coordinators of another fleet, whose epochs start again."""
    following = None if record.next is None else replace(record.next, epoch=0)
    return replace(record, order=replace(record.order, epoch=0), next=following)


def _content(order: ReleaseOrder) -> tuple[str | None, dict[str, Any], Group | None, bool]:
    return order.release, order.params, order.group, order.enabled
