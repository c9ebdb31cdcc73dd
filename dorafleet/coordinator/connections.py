"""The connections of robots' agents: who attaches, what they report, when one is silent."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection

from dorad import __version__
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages.agent import (
    AGENT_ATTACH,
    AGENT_WATCH,
    AgentReport,
    AgentWatch,
    Attach,
    Attached,
    Remember,
)
from dorad.control.peer import Peer
from dorad.control.shortening import short_release, short_share
from dorad.control.target import Accepted
from dorad.jitter import between
from dorad.problems import ProblemError
from dorafleet.coordinator.auditmemories import AuditMemories
from dorafleet.coordinator.findings import SKEW_S
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.place import (
    Origin,
    former_after,
    is_clone,
    is_surely_first,
    was_first,
    with_clone,
)
from dorafleet.coordinator.probe import Probe, Skew, skew_of
from dorafleet.coordinator.renewal import Renewal, Sign
from dorafleet.coordinator.reports import (
    MAX_NAME,
    MAX_USUAL,
    Sizes,
    check_attached,
    check_report,
    sizes_after,
)
from dorafleet.coordinator.robot import MAX_REASON, Robot, unknown_robot
from dorafleet.coordinator.robots import Robots

SLOTS = 64
"""Robots that attach at the same time; the others wait. Each has one slot at most."""

SLOW_SLOTS = 8
"""The same, for robots that did not attach in time when they connected last."""

HEARTBEAT_S = 5.0
ROBOTS_A_SECOND = 200
"""Reports, and tries to connect, of the whole fleet."""

SPREAD = 0.2

SILENT_HEARTBEATS = 3
"""Missed heartbeats after which a robot is unreachable."""

ATTACH_S = 10.0

ANSWER_S = 3.0
"""Seconds that a robot has to answer when another connection with its certificate is opened."""

CLONE_S = 30.0
"""Seconds for which the connection of a clone with earlier software is kept open, unused."""

PACE_S = 0.02
"""Minimum seconds between two reports that are taken from a robot."""

_log = logging.getLogger(__name__)


def pause_of(robots: int) -> float:
    """Return the seconds over which so many robots spread their tries to connect."""
    return robots / ROBOTS_A_SECOND


class _Answer(NamedTuple):
    """What a robot has answered first."""

    attach: Attach
    """The request."""
    attached: Attached
    skew: Skew
    """Of its clock."""
    sizes: Sizes
    """Of its states."""


class Connections:
    """Keeps the robots as their agents report them."""

    def __init__(
        self,
        robots: Robots,
        attach: Callable[[Robot], Attach],
        on_attached: Callable[[Robot, Attach, Attached], Awaitable[None]],
        memories: AuditMemories,
        sign: Sign | None = None,
        hand_overs: HandOvers | None = None,
    ) -> None:
        """`attach` returns the first request to an agent; `memories` are of the audit.

        `on_attached` may raise ControlError to refuse a robot. `sign` renews the certificates of
        robots, `hand_overs` tells them which authorities to trust.
        """
        self._robots = robots
        self._attach = attach
        self._on_attached = on_attached
        self._memories = memories
        self._sign = sign
        self._hand_overs = hand_overs
        self._slots = asyncio.Semaphore(SLOTS)
        self._slow_slots = asyncio.Semaphore(SLOW_SLOTS)
        self._slow: set[str] = set()
        """Robots that did not attach in time when they connected last."""
        self._attaching: dict[str, ServerConnection] = {}
        """The connection of each robot that has not attached yet: the newest."""
        self._closing: set[asyncio.Task[None]] = set()
        """Connections that were replaced."""

    @property
    def heartbeat(self) -> float:
        """The seconds between two reports of a robot, different for each."""
        usual = max(HEARTBEAT_S, len(self._robots.all) / ROBOTS_A_SECOND)
        return between(usual * (1 - SPREAD), usual * (1 + SPREAD))

    async def accept(self, connection: ServerConnection, peer: Peer) -> None:
        """Use the connection of a robot's agent until it ends."""
        robot = self._robots.find(peer.name)
        if robot is None:
            _log.warning("refused the agent of `%s`: it is not in the fleet", peer.name)
            await connection.close(1008, "not in the fleet")
            return
        client = AsyncClient(
            Accepted(connection, robot.id, robot.pace),
            name=f"dorafleet {__version__}",
        )
        renewal = Renewal(client, peer, self._sign)
        before = self._attaching.get(robot.id)
        self._attaching[robot.id] = connection
        if before is not None:
            _log.debug("robot `%s`: a newer connection ends one that did not attach", robot.id)
            before.transport.abort()
        try:
            answer = await self._first_answer(robot, client, renewal)
        except (ProblemError, TimeoutError) as error:
            if self._attaching.get(robot.id) is not connection:
                return  # a newer one has replaced it
            reason = str(error) or f"it did not attach within {ATTACH_S:g} s"
            _log.warning("refused the agent of `%s`: %s", robot.id, reason)
            self._robots.refuse(robot.id, reason)
            await connection.close(1008, "refused")
            return
        finally:
            if self._attaching.get(robot.id) is connection:
                del self._attaching[robot.id]
        if not await self._take_place(robot, connection, client, answer):
            return
        reason = "the connection was lost"
        try:
            reason = await self._follow(robot, client, renewal)
        finally:
            if robot.client is client:
                _log.info("robot `%s` is unreachable: %s", robot.id, reason)
                robot.client, robot.reason = None, reason
                robot.away_since = time.monotonic()
                self._robots.changed(robot)
            await client.close()

    async def _first_answer(self, robot: Robot, client: AsyncClient, renewal: Renewal) -> _Answer:
        """Return what a robot answers first.

        Raises:
            ProblemError: it refuses, or the answer cannot be that of this robot.
            TimeoutError: it does not answer in time.
        """
        # Answer at once: an agent does not wait long.
        await client.open()
        async with self._slow_slots if robot.id in self._slow else self._slots:
            # Until it has attached, it keeps no other robot from a slot again.
            self._slow.add(robot.id)
            async with asyncio.timeout(ATTACH_S):
                await renewal.before_use()
                asked_at, attach = time.time(), self._attach(robot)
                attached = await self._ask(robot, client, attach)
                skew = skew_of(attached.time, asked_at, time.time())
                sizes = _checked(robot, attached)
            self._slow.discard(robot.id)
        return _Answer(attach, attached, skew, sizes)

    async def _ask(self, robot: Robot, client: AsyncClient, attach: Attach) -> Attached:
        """Return a robot's answer. Raises ControlError, and notes whether another term is why."""
        try:
            attached = await client.call(AGENT_ATTACH, attach)
        except ControlError as error:
            robot.outranked = robot.outranked or error.code == "conflict"
            raise
        robot.outranked = False
        return attached

    async def _take_place(
        self,
        robot: Robot,
        connection: ServerConnection,
        client: AsyncClient,
        answer: _Answer,
    ) -> bool:
        """Make a connection that of its robot; False if it is refused, and closed."""
        attached = answer.attached
        origin = _origin(connection, attached)
        try:
            async with asyncio.timeout(ATTACH_S), robot.attaching:
                if self._robots.find(robot.id) is not robot:
                    raise unknown_robot(robot.id, self._robots.machines)  # removed meanwhile
                if await self._has_place(robot, origin):
                    await self._on_attached(robot, answer.attach, attached)
                    robot.former = former_after(robot.former, robot.origin, origin)
                    robot.sizes, robot.origin = answer.sizes, origin
                    self._replace(robot, client, attached, answer.skew)
                    return True
        except (ProblemError, TimeoutError) as error:
            reason = str(error) or "others connect with its certificate all the time"
            _log.warning("refused the agent of `%s`: %s", robot.id, reason)
            self._robots.refuse(robot.id, reason)
            await connection.close(1008, "refused")
            return False
        await self._refuse_clone(robot, connection, attached)
        return False

    async def _has_place(self, robot: Robot, origin: Origin) -> bool:
        """Return True if a connection is of the robot itself, False if it is of a clone."""
        before, answers = robot.client, False
        known = any(each.origin == origin for each in robot.clones)
        if before is not None and not known and not is_surely_first(origin, robot.origin):
            answers = await before.answers(ANSWER_S)
            _log.debug("robot `%s` comes from %s, the first answers: %s", robot.id, origin, answers)
        if was_first(origin, robot.former, robot.origin):
            if answers and robot.origin is not None:
                robot.clones = with_clone(robot.clones, robot.origin, time.time())
                _log.warning(
                    "robot `%s`: %s came back, %s has a copy",
                    robot.id,
                    origin.host,
                    robot.origin.host,
                )
            return True
        if not is_clone(origin, robot.origin, robot.clones, first_answers=answers):
            return True
        now = time.time()
        robot.clones = with_clone(robot.clones, origin, now)
        if not known:
            _log.warning("robot `%s`: %s", robot.id, robot.clone)
        self._robots.changed(robot)
        return False

    async def _refuse_clone(
        self, robot: Robot, connection: ServerConnection, attached: Attached
    ) -> None:
        """Close the connection of a clone, which gets no orders."""
        if not attached.machine_id:
            # An agent of an earlier version connects again at once after it has attached.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLONE_S):
                    await connection.wait_closed()
        await connection.close(1008, f"another machine has the id {robot.id:.60}")

    def _replace(self, robot: Robot, client: AsyncClient, attached: Attached, skew: Skew) -> None:
        """Make a connection the one of its robot."""
        before = robot.client
        robot.client, robot.away_since = client, None
        # Its states are kept once, and change.
        robot.attached = replace(attached, shares=[], releases=[])
        robot.shares = {share.dataflow: share for share in attached.shares}
        robot.releases = {each.dataflow: each for each in attached.releases}
        robot.secrets = attached.secrets
        robot.answers = {}
        robot.reason, robot.was_refused, robot.daemon = "", False, ""
        self._saw(robot)
        self._measured(robot, skew)
        _log.info("robot `%s` is connected (dorad-agent %s)", robot.id, attached.version)
        if before is not None:
            _log.info("robot `%s`: a new connection replaces the open one", robot.id)
            # Not waited for: its peer may be gone, and the new one is used at once.
            closing = asyncio.create_task(before.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._robots.changed(robot)

    async def _follow(self, robot: Robot, client: AsyncClient, renewal: Renewal) -> str:
        """Take the reports of a robot until they end; return the reason of the end."""
        heartbeat = self.heartbeat
        silence = SILENT_HEARTBEATS * heartbeat
        watch = AgentWatch(heartbeat=heartbeat)
        probe = Probe(client, robot.id, partial(self._memories.question, robot))
        if self._memories.is_behind(robot):
            probe.soon()
        try:
            async with AsyncExitStack() as stack:
                reports = await stack.enter_async_context(client.stream(AGENT_WATCH, watch))
                if self._hand_overs is not None:
                    stack.enter_context(self._hand_overs.connected(robot.id, client, renewal.renew))
                while True:
                    async with asyncio.timeout(silence):
                        report = await anext(reports, None)
                    if report is None:
                        return "the agent ended its reports"
                    if robot.client is client:
                        self._take(robot, report)
                        if abs(report.time - time.time() - robot.skew.seconds) > SKEW_S:
                            probe.soon()
                    await renewal.when_due()
                    if self._memories.lacks_revocations(robot):
                        probe.soon()
                    answer = await probe.when_due()
                    if answer is not None and robot.client is client:
                        await self._probed(robot, *answer)
                    # A robot that sends too fast is delayed, and cut off if too much waits.
                    await asyncio.sleep(PACE_S)
        except TimeoutError:
            return f"it was silent for {silence:.0f} s"
        except ControlError as error:
            return error.message[:MAX_REASON]

    def _take(self, robot: Robot, report: AgentReport) -> None:
        """Take one report. Raises ControlError if it makes no sense."""
        check_report(report)
        report.shares = [short_share(share, MAX_USUAL) for share in report.shares]
        report.releases = [short_release(release, MAX_USUAL) for release in report.releases]
        robot.sizes = sizes_after(robot.sizes, report.shares, report.releases)
        self._saw(robot)
        reported = [text[:MAX_REASON] for text in report.warnings]
        is_changed = (
            bool(report.shares or report.removed or report.releases)
            or robot.daemon != report.daemon[:MAX_REASON]
            or robot.reported != reported
            or report.accepts not in (None, robot.accepts)
        )
        robot.reported = reported
        if report.accepts is not None and robot.attached is not None:
            robot.attached = replace(robot.attached, accepts=report.accepts)
        robot.daemon = report.daemon[:MAX_REASON]
        robot.room = report.room
        for share in report.shares:
            known = robot.shares.get(share.dataflow)
            if known is not None and share.generation < known.generation:
                continue  # a later answer has overtaken this report
            _log.debug("robot `%s`: `%s` is %s", robot.id, share.dataflow, share.status)
            robot.shares[share.dataflow] = share
        for release in report.releases:
            earlier = robot.releases.get(release.dataflow)
            if earlier is None or release.generation >= earlier.generation:
                _log.debug("robot `%s`: `%s` is %s", robot.id, release.dataflow, release.phase)
                robot.releases[release.dataflow] = release
        for name in report.removed:
            robot.sizes.pop(("share", name), None)
            robot.shares.pop(name, None)
            robot.answers.pop(name, None)
        if is_changed:
            self._robots.changed(robot)

    async def _probed(self, robot: Robot, skew: Skew, sent: Remember, known: str) -> None:
        """Take a robot's answer about its clock and its head of the audit."""
        self._measured(robot, skew)
        try:
            await self._memories.answered(robot, sent, known)
        except ProblemError as error:
            _log.warning("the audit cannot be compared with what `%s` knows: %s", robot.id, error)

    def _saw(self, robot: Robot) -> None:
        robot.seen_at, robot.seen = time.time(), time.monotonic()

    def _measured(self, robot: Robot, skew: Skew) -> None:
        """Take the skew of a robot's clock, and warn of a wrong one."""
        if skew.beyond(SKEW_S) and abs(skew.seconds - robot.skew.seconds) > SKEW_S:
            _log.warning("the clock of robot `%s` is off by %.0f s", robot.id, skew.seconds)
        robot.skew = skew


def _checked(robot: Robot, attached: Attached) -> Sizes:
    """Shorten the states in an answer, and return their sizes.

    Raises:
        ControlError: the answer cannot be that of this robot.
    """
    if attached.robot != robot.id:
        raise ControlError(
            "refused", f"the agent of `{robot.id}` says that it is `{attached.robot[:100]}`"
        )
    check_attached(attached)
    attached.shares = [short_share(share, MAX_USUAL) for share in attached.shares]
    attached.releases = [short_release(release, MAX_USUAL) for release in attached.releases]
    return sizes_after({}, attached.shares, attached.releases)


def _origin(connection: ServerConnection, attached: Attached) -> Origin:
    """Return from which machine an agent connects."""
    address = connection.remote_address
    host = str(address[0]) if isinstance(address, tuple) else ""
    return Origin(host, attached.boot_id[:MAX_NAME], attached.machine_id[:MAX_NAME])
