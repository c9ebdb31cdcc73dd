"""Which requests a robot is due: what it should run, compared with what it reports. Pure functions.

They look at states, never at what has changed: it does not matter how often or after which failure
they are asked.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import HealthRules, ReleaseOrder, ReleaseState
from dorafleet.coordinator.records import Restored, RobotAssignment
from dorafleet.coordinator.verdicts import FINAL
from dorafleet.rollout.instances import ARM_S
from dorafleet.rollout.model import Rollout

AnswerKind: TypeAlias = Literal["stored", "refused", "newer", "failed"]

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Request:
    """Something to send to a robot about one dataflow.

    `set` gives it its share of a dataflow that was started, `open` opens the start barrier there,
    and `remove` lets it forget a share that has ended. `order` is about a release.
    """

    kind: Literal["set", "open", "remove", "order"]
    dataflow: str
    generation: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What has become of the last request about one dataflow since the robot connected.

    `stored`: the robot has taken it. `refused`: it would refuse it again. `newer`: it has a newer
    generation of the share. `failed`: it could not store it, or did not answer; the request is sent
    again.
    """

    request: Request
    kind: AnswerKind
    reason: str = ""
    failures: int = 0
    """How many requests in a row have failed."""
    waits: bool = False
    """Of `failed`: whether it is too early to send the request again."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done for one robot."""

    requests: list[Request]
    conflicts: dict[str, str]
    """Shares that are newer than the store, with the reason. All shares of the robot stay as they
    are until an operator decides."""
    over: set[str]
    """Dataflows whose answer means nothing any more."""
    strange: dict[str, str]
    """Dataflows of which a robot reports an order that nobody gave, with what it reports."""


class Term(NamedTuple):
    """The term of a coordinator."""

    epoch: int = 0
    since: int = 0
    """Orders of this term have higher generations."""


def due_requests(
    desired: Mapping[str, RobotAssignment],
    opened: Collection[str],
    shares: Mapping[str, ShareState],
    releases: Mapping[str, ReleaseState],
    answers: Mapping[str, Answer],
    restored: Restored | None,
    term: Term = Term(),  # noqa: B008  # it is frozen
) -> Due:
    """Return what is due for one robot; after it the robot has its desired state.

    Everything is by dataflow: `desired` is from the store, `shares` and `releases` are what the
    robot has reported, and `answers` what has become of requests. `opened` are the dataflows whose
    barrier is open.
    """
    started = {name: target for name, target in desired.items() if not target.is_order}
    conflicts = {
        name: reason
        for name, share in shares.items()
        if (reason := _conflict(started.get(name), share, restored))
    }
    for name, answer in answers.items():
        target = started.get(name)
        refused = answer.request.generation if answer.kind == "newer" else None
        if target is not None and target.generation == refused:
            conflicts.setdefault(name, answer.reason)
    requests = list(_orders(desired, releases, term))
    if not conflicts:
        requests += _shares(started, opened, shares)
    names = {request.dataflow for request in requests}
    return Due(
        [each for each in requests if _is_open(each, answers.get(each.dataflow))],
        conflicts,
        {
            name
            for name, answer in answers.items()
            # What has failed is done nevertheless, if the robot reports it.
            if (answer.kind == "failed" and name not in names)
            or not (name in desired or name in shares)
        },
        dict(_strange(desired, releases, restored, term)),
    )


def _orders(
    desired: Mapping[str, RobotAssignment], releases: Mapping[str, ReleaseState], term: Term
) -> Iterator[Request]:
    for name, target in desired.items():
        if not target.is_order or (target.release and not _ID.fullmatch(target.release)):
            continue  # set by hand, and no release that is registered
        state = releases.get(name)
        # What is newer than the store is shown by `dorafleet drift`.
        if bool(target.release) if state is None else _is_due(target, state, term):
            yield Request("order", name, target.generation)


def _is_due(target: RobotAssignment, state: ReleaseState, term: Term) -> bool:
    """Return True if a robot does not have its order yet.

    What is ordered in this term replaces all of earlier ones: another store may have given them.
    """
    decided_now = state.epoch < term.epoch and target.generation > term.since
    return state.generation < target.generation or (
        decided_now and state.generation != target.generation
    )


def _strange(
    desired: Mapping[str, RobotAssignment],
    releases: Mapping[str, ReleaseState],
    restored: Restored | None,
    term: Term,
) -> Iterator[tuple[str, str]]:
    """Yield what robots report of orders that were never given."""
    for name, state in releases.items():
        target = desired.get(name)
        if target is None or not target.is_order or state.generation <= target.generation:
            continue
        was_lost = restored is not None and restored.backup < state.generation < restored.first
        if not was_lost and not _is_due(target, state, term):
            given = target.generation
            yield name, f"generation {state.generation}; the last that was given is {given}"


def _shares(
    started: Mapping[str, RobotAssignment],
    opened: Collection[str],
    shares: Mapping[str, ShareState],
) -> Iterator[Request]:
    for name, target in started.items():
        share = shares.get(name)
        if target.enabled if share is None else share.generation < target.generation:
            yield Request("set", name, target.generation)
        elif share is not None and share.status == "ready" and name in opened:
            yield Request("open", name, target.generation)
    for name, share in shares.items():
        if name not in started:
            yield Request("remove", name, share.generation)


def _is_open(request: Request, answer: Answer | None) -> bool:
    """Return True unless a request was answered for good, or it is too early to repeat it."""
    if answer is None or answer.request != request:
        return True
    return answer.kind == "failed" and not answer.waits


def _conflict(target: RobotAssignment | None, share: ShareState, restored: Restored | None) -> str:
    """Return why a share is newer than the store, or an empty text."""
    lost = restored is not None and restored.backup < share.generation < restored.first
    if target is None:
        if share.status in FINAL:
            # Nothing is left to decide, and cleaning up what was adopted must not pause its robot.
            return ""
        if lost:
            return "it was started after the backup from which the store was restored"
        return "it runs, and the store does not know it"
    if share.generation > target.generation:
        if lost:
            return "it was changed after the backup from which the store was restored"
        return f"its generation {share.generation} is above {target.generation}"
    return ""


def order_of(
    dataflow: str, wanted: RobotAssignment, head: Rollout | None, epoch: int
) -> ReleaseOrder:
    """Return the order for a desired state; `head` is the rollout that it is from."""
    order = ReleaseOrder(
        epoch=epoch,
        generation=wanted.generation,
        dataflow=dataflow,
        release=wanted.release or None,
        params=wanted.params,
        enabled=wanted.enabled,
        switch=wanted.switch,
        arm=ARM_S if wanted.arm else 0.0,
        rollout=str(wanted.rollout) if wanted.rollout else "",
        rules=HealthRules() if head is None else head.strategy.rules,
        allow_lower=wanted.allow_lower,
        retry=wanted.retry,
        stay=wanted.stay,
        rejects=wanted.rejects,
        soak_time=wanted.soak_time,
        withdraw=wanted.withdraw,
        group=wanted.group,
        committed=wanted.committed,
    )
    if wanted.returns:
        order.resume_after = order.rules.confirm_deadline
    if head is not None:
        order.busy, order.busy_max = head.strategy.busy, head.strategy.busy_max
    return order
