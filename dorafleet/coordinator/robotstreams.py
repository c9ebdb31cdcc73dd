"""The streams that clients have open on robots, with quotas by name.

A robot's daemon has places for a number of streams, which all clients of the coordinator share.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from dorad.control.errors import ControlError
from dorad.control.limits import Held
from dorad.control.messages import StreamMethod, TopicHeader, TopicSubscribe
from dorad.control.messages.method import P, R
from dorad.control.peer import Peer
from dorafleet.coordinator.robots import Robots


class Quota(NamedTuple):
    """How many places of one robot clients may take."""

    kind: str
    of_all: int
    """For clients that are not admins; the daemon has more, for admins."""
    each: int
    """For one name."""


STREAMS = Quota("streams", of_all=24, each=8)
"""A daemon has 32 for an agent."""

SUBSCRIPTIONS = Quota("subscriptions", of_all=12, each=4)
"""A daemon has 16 for each dataflow. A subscription is a stream as well."""


class RobotStreams:
    """Opens streams on robots for clients."""

    def __init__(self, robots: Robots) -> None:
        self._robots = robots
        self._used: defaultdict[tuple[str, Quota], Counter[str]] = defaultdict(Counter)
        """Open streams by robot and quota, of each owner."""
        self._of_others: Counter[str] = Counter()
        """Those of clients that are not admins, by robot and kind."""

    @asynccontextmanager
    async def stream(
        self, peer: Peer, robot: str, method: StreamMethod[P, R], params: P
    ) -> AsyncIterator[AsyncIterator[R]]:
        """Open a stream on a robot for a client. Raises ControlError."""
        with self._place(peer, robot, STREAMS):
            async with self._robots.client(robot).stream(method, params) as events:
                yield events

    @asynccontextmanager
    async def frames(
        self, peer: Peer, robot: str, params: TopicSubscribe
    ) -> AsyncIterator[AsyncIterator[tuple[TopicHeader, memoryview]]]:
        """Open a subscription on a robot for a client. Raises ControlError."""
        with self._place(peer, robot, STREAMS), self._place(peer, robot, SUBSCRIPTIONS):
            async with self._robots.client(robot).frames(params) as events:
                yield events

    @contextmanager
    def _place(self, peer: Peer, robot: str, quota: Quota) -> Iterator[None]:
        """Hold a place of a robot. Raises ControlError if this client may have no more."""
        used = self._used[robot, quota]
        if used[peer.owner] >= quota.each:
            raise ControlError(
                "busy",
                f"`{peer}` has {quota.each} {quota.kind} on robot `{robot}`, "
                "the maximum for one name",
                "end some of them",
            )
        place = f"{robot} {quota.kind}"
        if peer.role != "admin" and self._of_others[place] >= quota.of_all:
            raise ControlError(
                "busy",
                f"clients have {quota.of_all} {quota.kind} on robot `{robot}`; "
                "the rest is for admins",
                "try again when some of them have ended",
            )
        held = [Held(used, peer.owner)]
        if peer.role != "admin":
            held.append(Held(self._of_others, place))
        try:
            yield
        finally:
            for each in held:
                each.release()
