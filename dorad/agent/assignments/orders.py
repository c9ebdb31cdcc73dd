"""The effect of an order on what the robot holds of a dataflow. Pure."""

from typing import Any

from msgspec.structs import replace

from dorad.agent.assignments.model import (
    MAX_FAILED,
    Assignment,
    Failed,
    ReleaseRecord,
    Revision,
    revision_of,
)
from dorad.agent.assignments.runs import RunRecord
from dorad.agent.assignments.steps import IN_SWITCH
from dorad.control.errors import ControlError
from dorad.control.messages.agent import ShareRef, ShareSet
from dorad.control.messages.releases import Group, ReleaseOrder

MAX_REASON = 1000
"""Characters of the reason why a revision was undone."""


def take_share(present: Assignment | None, order: ShareSet, boot: str) -> Assignment:
    """Return the assignment after an order of the coordinator for an inline dataflow.

    Raises:
        ControlError: with code `conflict`: the dataflow comes from releases here, or the order is
            older than the present one, or differs from it under the same number.
    """
    if present is not None and present.release is not None:
        raise ControlError(
            "conflict",
            f"the dataflow {order.dataflow} comes from releases here",
            "`dorafleet rollout start` changes it",
        )
    return Assignment(take_run(None if present is None else present.run, order, boot))


def take_release(present: Assignment | None, order: ReleaseOrder, new: ReleaseRecord) -> Assignment:
    """Return the assignment after an order about a release; `new` is for an unknown dataflow.

    Raises:
        ControlError: with code `conflict`: an inline dataflow of that name runs here, or the order
            is older than the present one, or differs from it under the same number.
    """
    present = present or Assignment(None)
    if present.release is not None:
        return replace(present, release=take_order(present.release, order, new))
    if present.run is not None and present.run.ended is None:
        raise ControlError(
            "conflict",
            f"the dataflow {order.dataflow} runs here and does not come from a release",
            "stop it first",
        )
    return Assignment(None, take_order(None, order, new))


def check_version(known: tuple[int, int], order: ShareSet | ShareRef | ReleaseOrder) -> None:
    """Raise ControlError with code `conflict` if an order is older than the known one.

    `known` is its epoch and generation.
    """
    if (order.epoch, order.generation) < known:
        raise ControlError(
            "conflict",
            f"the order for {order.dataflow} here is of epoch {known[0]}, generation {known[1]}; "
            f"epoch {order.epoch}, generation {order.generation} is older",
        )


def take_run(
    record: RunRecord | None, order: ShareSet, boot: str, *, opens: bool = False
) -> RunRecord:
    """Return the record after an order; `opens` says whether this robot opens its barrier itself.

    Raises:
        ControlError: as `take_share`.
    """
    if record is None:
        return RunRecord(order=order, boot=boot, opens=opens)
    check_version(record.version, order)
    if not record.same_order(order):
        if record.version == (order.epoch, order.generation):
            raise ControlError(
                "conflict",
                f"the share of {order.dataflow} here has generation {order.generation} already, "
                "but that orders another run, or has the opposite `enabled`",
            )
        return RunRecord(order=order, boot=boot, begun=record.begun, opens=opens)
    if record.order.hold is None:
        # A barrier that is open stays open.
        order = replace(order, hold=None)
    return _renumber(record, order)


def _renumber(record: RunRecord, order: ShareSet) -> RunRecord:
    """Return the record with the same order, possibly from a coordinator with a new term."""
    begun = record.begun
    if begun is not None and record.started:
        begun = replace(begun, version=(order.epoch, order.generation))
    return replace(record, order=order, begun=begun)


def open_barrier(record: RunRecord, ref: ShareRef) -> RunRecord:
    """Return the record once `share.open` has arrived.

    Raises:
        ControlError: with code `conflict`: it is not for the order of the record.
    """
    check_version(record.version, ref)
    if ref.generation != record.order.generation:
        raise ControlError(
            "conflict",
            f"the share of {ref.dataflow} here is of generation {record.order.generation}, "
            f"not {ref.generation}",
        )
    return _renumber(record, replace(record.order, epoch=ref.epoch, hold=None))


def take_order(
    record: ReleaseRecord | None, order: ReleaseOrder, new: ReleaseRecord
) -> ReleaseRecord:
    """Return the record of a release after an order. Raises as `take_release`."""
    return _with_rejections(new if record is None else _take(record, order), order)


def _take(record: ReleaseRecord, order: ReleaseOrder) -> ReleaseRecord:
    present = record.next or record.order
    check_version(record.version, order)
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
    by_digest = {each.digest: each for each in record.rejected}
    for each in order.rejects:
        revision = Revision(each.release, each.params, each.group)
        digest = each.release if each.whole else revision.digest
        by_digest[digest] = Failed(digest, each.reason[:MAX_REASON] or "undone")
    if order.release is not None and not order.stay:
        for name in revision_of(order).names:
            by_digest.pop(name, None)
    rejected = [*by_digest.values()][-MAX_FAILED:]
    return record if rejected == record.rejected else replace(record, rejected=rejected)


def forget_epoch(present: Assignment) -> Assignment:
    """Return the assignment for the coordinators of another fleet, whose epochs start again."""
    run, release = present.run, present.release
    if run is not None:
        run = _renumber(run, replace(run.order, epoch=0))
    if release is not None:
        following = None if release.next is None else replace(release.next, epoch=0)
        release = replace(release, order=replace(release.order, epoch=0), next=following)
    return Assignment(run, release)


def _content(order: ReleaseOrder) -> tuple[str | None, dict[str, Any], Group | None, bool]:
    return order.release, order.params, order.group, order.enabled
