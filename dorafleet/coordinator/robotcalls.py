"""Ask robots, several of them at once. One without an answer is named, and delays no other."""

import asyncio
import logging
from collections.abc import Collection, Iterable

from dorad.control.errors import ControlError
from dorad.control.messages import CallMethod
from dorad.control.messages.method import P, R
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.robots import Robots

ANSWER_S = 3.0
"""Seconds that a robot has to answer when several are asked."""

BEGUN_S = 5.0
"""Seconds that robots have to begin a run before a call about it is forwarded all the same."""

_SILENT = ("deadline", "unavailable")
"""Codes of errors that are about a server on the robot, and not about what it was asked."""

_log = logging.getLogger(__name__)


async def ask(
    robots: Robots,
    ids: Iterable[str],
    method: CallMethod[P, R],
    params: P,
    *,
    unknown: R | None = None,
) -> tuple[dict[str, R], dict[str, str]]:
    """Call a method of several robots; return the answers, and the reasons of missing ones.

    `unknown` is the answer of a robot that does not know the dataflow.
    """
    answers: dict[str, R] = {}
    missing: dict[str, str] = {}

    async def one(id_: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                answers[id_] = await robots.call(id_, method, params)
        except TimeoutError:
            missing[id_] = f"it did not answer within {ANSWER_S:g} s"
        except ControlError as error:
            if error.code == "not-found" and unknown is not None:
                answers[id_] = unknown
                return
            missing[id_] = error.message

    order = list(ids)
    async with asyncio.TaskGroup() as tasks:
        for id_ in order:
            tasks.create_task(one(id_))
    for id_, reason in missing.items():
        _log.debug("robot `%s` did not answer `%s`: %s", id_, method.name, reason)
    return {id_: answers[id_] for id_ in order if id_ in answers}, missing


async def ask_one(robots: Robots, id_: str, method: CallMethod[P, R], params: P) -> R:
    """Call a method of one robot, and return its answer.

    Raises:
        ControlError: that of the robot, which is named if its dorad does not answer.
    """
    client = robots.client(id_)
    try:
        return await client.call(method, params)
    except ControlError as error:
        raise (named(id_, error) if error.code in _SILENT else error) from None


def named(robot: str, error: ControlError) -> ControlError:
    """Return an error with the robot that it is about. What to do must be done there."""
    hint = f"on `{robot}`: {error.hint}" if error.hint and error.code in _SILENT else error.hint
    return ControlError(error.code, f"robot `{robot}`: {error.message}", hint, error.problems)


async def until_begun(
    fleet: Fleet, robots: Robots, record: DataflowRecord, ids: Collection[str]
) -> None:
    """Wait until these robots have begun a run: before that, their daemons do not know it.

    It ends at once for a robot that cannot begin; its own answer then says why.
    """

    def begun() -> bool:
        now = fleet.get(record.key)
        if now is None or now.uuid != record.uuid or not now.running:
            return True
        shares, away = robots.shares_of(record.key, ids), robots.unreachable(ids)
        return all(
            id_ in away
            or (
                (share := shares[id_]) is not None
                and share.uuid == record.uuid
                and (share.status != "pending" or bool(share.reason))
            )
            for id_ in ids
        )

    if not await fleet.bell.until(begun, BEGUN_S):
        _log.debug("%s has not begun on all of %s", record.key, ", ".join(ids))
