"""What robots keep for the fleet: the head of the audit, and the newest revocations.

A store that was restored, copied or tampered with may lack records that robots know. Each robot
keeps the highest head that no coordinator has missed in its audit, until an operator acknowledges
the difference.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dorad.control.messages.agent import AGENT_REMEMBER, Attach, Attached, Remember, Revocation
from dorafleet.coordinator.audit import contradiction
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.grants import MAX_REVOCATIONS
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.store.model import Store

_log = logging.getLogger(__name__)


class AuditMemories:
    """Compares the memory of each robot with the store. Only the leader has one."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        robots: Robots,
        revocations: Callable[[], Sequence[Revocation]],
    ) -> None:
        """`revocations` returns the newest of the store."""
        self._store = store
        self._fleet = fleet
        self._robots = robots
        self._revocations = revocations

    async def attached(self, robot: Robot, attach: Attach, attached: Attached) -> None:
        """Take the memory of a robot that has attached. Raises StoreError or AuditError."""
        # One that has no head yet keeps that of the first request.
        robot.head = attached.audit or attach.audit
        robot.revocations = list(attached.revocations)
        await self._compare(robot)

    def is_behind(self, robot: Robot) -> bool:
        """Return True if a robot can be told of newer records."""
        return not robot.audit and robot.head != self._head

    def lacks_revocations(self, robot: Robot) -> bool:
        """Return True if a robot has to be told at once of a revocation."""
        return robot.revocations[-1:] != list(self._revocations()[-1:]) and self._follows(robot)

    async def question(self, robot: Robot) -> Remember:
        """Return what a robot is to remember from now on.

        It replaces nothing on a robot that knows more than this store.
        """
        await self._compare(robot)
        return self._newest(robot.head if self._follows(robot) else "")

    async def answered(self, robot: Robot, sent: Remember, known: str) -> None:
        """Take the head that a robot had before it was `sent` another one."""
        if known != robot.head:
            robot.head = known
            await self._compare(robot)
        if known in ("", sent.known) and self._follows(robot):
            robot.head, robot.revocations = sent.audit, sent.revocations

    async def acknowledge(self, robot: Robot, actor: Mapping[str, Any]) -> None:
        """Let a robot follow this audit, although it knows another one, and these revocations.

        Raises:
            ControlError: the robot cannot be reached.
            StoreError: the acknowledgement cannot be written to the audit.
        """
        client = self._robots.client(robot.id)
        record = {
            **actor,
            "action": "audit.acknowledge",
            "robot": robot.id,
            "known": robot.head,
            "why": robot.audit,
            "revoked": self.lost(robot),
        }
        async with self._fleet.writer.changing:
            await self._fleet.put_orders({}, record)
        _log.info("robot `%s`: its head of the audit, %s, is given up", robot.id, robot.head)
        sent = self._newest(robot.head)
        await client.call(AGENT_REMEMBER, sent)
        robot.head, robot.revocations = sent.audit, sent.revocations
        robot.audit = ""
        self._robots.changed(robot)

    def lost(self, robot: Robot) -> list[str]:
        """Return who was revoked, as a robot knows and the store does not."""
        return lost(robot.revocations, self._revocations())

    def _newest(self, known: str) -> Remember:
        return Remember(audit=self._head, known=known, revocations=list(self._revocations()))

    @property
    def _head(self) -> str:
        """The end of the audit. Not all changes are those of dataflows and rollouts."""
        return str(self._fleet.writer.head or self._fleet.head)

    def _follows(self, robot: Robot) -> bool:
        """Return True if a robot knows nothing that this store lacks."""
        return not robot.audit and not self.lost(robot)

    async def _compare(self, robot: Robot) -> None:
        """Compare a robot's memory with the store; a contradiction stays."""
        contradicted = await contradiction(self._store, robot.head)
        if contradicted and contradicted != robot.audit:
            _log.warning("robot `%s` knows another audit: %s", robot.id, contradicted)
            robot.audit = contradicted


def lost(known: Sequence[Revocation], stored: Sequence[Revocation]) -> list[str]:
    """Return the owners in revocations that a robot knows of, and the store does not.

    Who was revoked again since is not missing. Very old ones are forgotten everywhere.
    """
    if [*known] == [*stored]:  # as they are sent to it
        return []
    newest: dict[str, float] = {}
    for each in stored:
        newest[each.owner] = max(each.at, newest.get(each.owner, each.at))
    oldest = min(newest.values(), default=0.0) if len(stored) >= MAX_REVOCATIONS else float("-inf")
    return sorted(
        {
            each.owner
            for each in known
            if each.at >= oldest and newest.get(each.owner, float("-inf")) < each.at
        }
    )
