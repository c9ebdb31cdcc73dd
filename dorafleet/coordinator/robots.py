"""The robots of the fleet as the coordinator measures them: connections, reports, silence.

Everything here is in memory only. A robot that connects reports all of it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from msgspec.structs import replace

from dorad import __version__
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import METHODS, Struct
from dorad.control.messages.agent import (
    AGENT_METHODS,
    AgentReport,
    AgentWatch,
    Attach,
    Attached,
    ShareState,
)
from dorad.control.messages.releases import ReleaseOrder, ReleaseState
from dorad.control.shortening import short_release, short_share
from dorad.control.target import Accepted
from dorad.dataflow.nearest import did_you_mean
from dorad.jitter import between
from dorad.problems import ProblemError
from dorafleet.coordinator.probing import Probe, Skew, skew_of
from dorafleet.coordinator.renewing import Renewal
from dorafleet.coordinator.reports import (
    MAX_USUAL,
    Sizes,
    check_attached,
    check_releases,
    check_report,
    check_shares,
    sizes_after,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from websockets.asyncio.server import ServerConnection

    from dorad.control.peer import Peer
    from dorafleet.coordinator.renewing import Sign
    from dorafleet.inventory.model import Machine

HANDSHAKES = 64
"""Robots that attach at the same time; the others wait."""

HEARTBEAT_S = 5.0
ROBOTS_A_SECOND = 200
SPREAD = 0.2

SILENT_HEARTBEATS = 3
"""A robot that is silent for so many heartbeats is unreachable."""

ATTACH_S = 10.0

PACE_S = 0.02
"""Minimum seconds between two reports that are taken from a robot."""

MAX_REASON = 1000
"""Characters of a reason that a robot gives."""

SKEW_S = 10.0
"""A clock that is further off is reported."""

RIVALS_S = 600.0
"""Seconds for which two machines with one id are reported."""

State = Literal["never-seen", "connected", "unreachable", "refused", "conflict-paused"]

R = TypeVar("R", bound=Struct)

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Robot:
    """The last known state of one robot."""

    machine: Machine
    client: AsyncClient | None = None
    """The connection to its agent."""
    attached: Attached | None = None
    """Its greeting when it connected last."""
    shares: dict[str, ShareState] = field(default_factory=dict)
    """By dataflow; the last that is known."""
    told: dict[str, int] = field(default_factory=dict)
    """The generation of each share that it has stored since it connected."""
    sending: set[str] = field(default_factory=set)
    """Dataflows whose share is on its way to it."""
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Shares that it has refused, by dataflow, with their generation and the reason."""
    newer: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Shares of which it says that it has a newer one, with the generation that it was sent."""
    conflicts: dict[str, str] = field(default_factory=dict)
    """Shares that the store does not know, by dataflow, with the reason."""
    skew: Skew = field(default_factory=Skew)
    """How far its clock is ahead of the coordinator's."""
    seen_at: float | None = None
    seen: float | None = None
    """The same on the monotonic clock."""
    releases: dict[str, ReleaseState] = field(default_factory=dict)
    """What it has reported of dataflows that come from releases; the last that is known."""
    ordered: dict[str, int] = field(default_factory=dict)
    """The generation of each order about a release that it has stored since it connected."""
    sizes: Sizes = field(default_factory=dict)
    """Bytes of what is kept of its reports."""
    daemon: str = ""
    """Why its daemon cannot be used."""
    reason: str = ""
    """Why it is not connected."""
    was_refused: bool = False
    away_since: float | None = field(default_factory=time.monotonic)
    """Since when it cannot be reached, on the monotonic clock; None while it can."""
    rivals_at: float = float("-inf")
    """When another machine took over its connection, on the monotonic clock."""
    audit: str = ""
    """How the audit contradicts the one that it knows."""

    @property
    def id(self) -> str:
        """Its id in the cluster file."""
        return self.machine.id

    @property
    def state(self) -> State:
        """Whether it can be reached, in one word."""
        if self.client is not None:
            return "conflict-paused" if self.conflicts else "connected"
        if self.was_refused:
            return "refused"
        return "never-seen" if self.attached is None else "unreachable"

    @property
    def warnings(self) -> list[str]:
        """Problems that an operator should know, although the robot is usable."""
        lines = []
        if time.monotonic() - self.rivals_at < RIVALS_S:
            lines.append("two machines connect with its id and certificate")
        if self.skew.beyond(SKEW_S):
            lines.append(f"its clock is off by {self.skew.seconds:.0f} s")
        return lines

    @property
    def age(self) -> float | None:
        """Seconds since it reported last; None if it never did."""
        return None if self.seen is None else time.monotonic() - self.seen

    @property
    def trouble(self) -> str:
        """Why nothing can be started there, or an empty text."""
        if self.client is None:
            if self.attached is None and not self.was_refused:
                return "it has never connected"
            return f"it is {self.state}" + (f": {self.reason}" if self.reason else "")
        if self.conflicts:
            name, reason = next(iter(self.conflicts.items()))
            return f"it is paused because of `{name}`: {reason}"
        return f"its dorad cannot be used: {self.daemon}" if self.daemon else ""


class Robots:
    """All robots, and the connections of their agents."""

    def __init__(
        self,
        machines: Iterable[Machine],
        attach: Callable[[], Attach],
        on_attached: Callable[[Robot, Attached], Awaitable[None]],
        on_audit: Callable[[Robot, str], Awaitable[None]],
        on_change: Callable[[Robot], None],
        sign: Sign | None = None,
    ) -> None:
        """`attach` returns the first request to an agent.

        `on_attached` may raise ControlError to refuse a robot; `on_audit` gets the head of the
        audit that one knows; `on_change` follows every report
        that says something new, every new connection, and the end of one. `sign` renews the
        certificates of robots.
        """
        self._robots = {machine.id: Robot(machine) for machine in machines}
        self._attach = attach
        self._on_attached = on_attached
        self._on_audit = on_audit
        self._on_change = on_change
        self._sign = sign
        self._handshakes = asyncio.Semaphore(HANDSHAKES)

    @property
    def all(self) -> list[Robot]:
        """All robots, in the order of the cluster file."""
        return list(self._robots.values())

    @property
    def machines(self) -> Mapping[str, Machine]:
        """The machines of the cluster file by their ids."""
        return {robot.id: robot.machine for robot in self._robots.values()}

    @property
    def heartbeat(self) -> float:
        """Return the seconds between two reports of a robot, different for each."""
        usual = max(HEARTBEAT_S, len(self._robots) / ROBOTS_A_SECOND)
        return between(usual * (1 - SPREAD), usual * (1 + SPREAD))

    def get(self, id_: str) -> Robot:
        """Return a robot. Raises ControlError."""
        robot = self._robots.get(id_)
        if robot is None:
            hint = did_you_mean(id_, self._robots)
            raise ControlError("not-found", f"there is no robot `{id_[:100]}`", hint)
        return robot

    def shares_of(self, dataflow: str, robots: Iterable[str]) -> dict[str, ShareState | None]:
        """Return the last known share of a dataflow for each robot."""
        found = ((id_, self._robots.get(id_)) for id_ in robots)
        return {id_: None if each is None else each.shares.get(dataflow) for id_, each in found}

    def unreachable(self, robots: Iterable[str]) -> dict[str, str]:
        """Return the robots without a connection, with the reason."""
        return {
            id_: self._robots[id_].trouble if id_ in self._robots else "it is not in the fleet"
            for id_ in robots
            if id_ not in self._robots or self._robots[id_].client is None
        }

    def refused(self, dataflow: str, robots: Iterable[str], generation: int) -> dict[str, str]:
        """Return the robots that have refused this generation of a share, with the reason."""
        found = (self._robots[id_] for id_ in robots if id_ in self._robots)
        return {
            robot.id: robot.refusals[dataflow][1]
            for robot in found
            if robot.refusals.get(dataflow, (0, ""))[0] == generation
        }

    def idle(self, dataflow: str, robots: Iterable[str]) -> set[str]:
        """Return the connected robots that have no share of a dataflow, and get none now."""
        found = (self._robots[id_] for id_ in robots if id_ in self._robots)
        return {
            robot.id
            for robot in found
            if robot.client and dataflow not in robot.shares and dataflow not in robot.sending
        }

    def away(self, seconds: float) -> set[str]:
        """Return the robots that could not be reached for so long."""
        now = time.monotonic()
        return {
            robot.id
            for robot in self._robots.values()
            if robot.away_since is not None and now - robot.away_since >= seconds
        }

    async def call(self, id_: str, method: str, params: Struct, kind: type[R]) -> R:
        """Call a method of a robot. Raises ControlError, also if it is not connected."""
        return await self.client(id_).call(method, params, kind)

    def client(self, id_: str) -> AsyncClient:
        """Return the connection to a robot. Raises ControlError if there is none."""
        robot = self.get(id_)
        if robot.client is None:
            raise ControlError(
                "unavailable",
                f"robot `{id_}` cannot be reached: {robot.trouble}",
                "`dorafleet status` shows all robots",
            )
        return robot.client

    async def accept(self, connection: ServerConnection, peer: Peer) -> None:
        """Use the connection of a robot's agent until it ends."""
        robot = self._robots.get(peer.name)
        if robot is None:
            _log.warning("refused the agent of `%s`: it is not in the cluster file", peer.name)
            await connection.close(1008, "not in the cluster file")
            return
        try:
            client = AsyncClient(
                Accepted(connection, robot.id),
                name=f"dorafleet {__version__}",
                methods=METHODS | AGENT_METHODS,
            )
            # Answer at once: an agent does not wait long.
            await client.open()
            async with self._handshakes, asyncio.timeout(ATTACH_S):
                renewal = Renewal(client, peer, self._sign)
                await renewal.before_use()
                asked_at = time.time()
                attached = await client.call("agent.attach", self._attach(), Attached)
                skew = skew_of(attached.time, asked_at, time.time())
                sizes = await self._check(robot, attached)
        except (ProblemError, TimeoutError) as error:
            reason = str(error) or f"it did not attach within {ATTACH_S:g} s"
            _log.warning("refused the agent of `%s`: %s", robot.id, reason)
            self.refuse(robot.id, reason)
            await connection.close(1008, "refused")
            return
        robot.sizes = sizes
        await self._replace(robot, client, attached, skew)
        reason = "the connection was lost"
        try:
            reason = await self._follow(robot, client, renewal)
        finally:
            if robot.client is client:
                _log.info("robot `%s` is unreachable: %s", robot.id, reason)
                robot.client, robot.reason = None, reason
                robot.away_since = time.monotonic()
                self._on_change(robot)
            await client.close()

    def refuse(self, id_: str, reason: str) -> None:
        """Keep why a robot was refused, if it has no other connection."""
        robot = self._robots.get(id_)
        if robot is not None and robot.client is None:
            robot.was_refused, robot.reason = True, reason[:MAX_REASON]
            self._on_change(robot)

    async def _check(self, robot: Robot, attached: Attached) -> Sizes:
        """Return the sizes of the states in an answer.

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
        sizes = sizes_after({}, attached.shares, attached.releases)
        await self._on_attached(robot, attached)
        return sizes

    async def _replace(
        self, robot: Robot, client: AsyncClient, attached: Attached, skew: Skew
    ) -> None:
        """Make a connection the one of its robot; the last one wins."""
        before, earlier = robot.client, robot.attached
        robot.client, robot.away_since = client, None
        # Its states are kept once, and change.
        robot.attached = replace(attached, shares=[], releases=[])
        robot.shares = {share.dataflow: share for share in attached.shares}
        robot.releases = {each.dataflow: each for each in attached.releases}
        robot.told.clear()
        robot.ordered.clear()
        robot.newer.clear()
        robot.reason, robot.was_refused, robot.daemon = "", False, ""
        self._saw(robot)
        self._measured(robot, skew)
        _log.info("robot `%s` is connected (dorad-agent %s)", robot.id, attached.version)
        if before is not None:
            other = earlier is not None and earlier.boot_id != attached.boot_id
            what = "from another boot; do two machines use this id?" if other else "of its agent"
            _log.warning("robot `%s`: a new connection replaces the open one, %s", robot.id, what)
            if other:
                robot.rivals_at = time.monotonic()
            await before.close()
        self._on_change(robot)

    async def _follow(self, robot: Robot, client: AsyncClient, renewal: Renewal) -> str:
        """Take the reports of a robot until they end; return the reason of the end."""
        heartbeat = self.heartbeat
        silence = SILENT_HEARTBEATS * heartbeat
        watch = AgentWatch(heartbeat=heartbeat)
        probe = Probe(client, robot.id, lambda: self._attach().audit)
        try:
            async with client.stream("agent.watch", watch, AgentReport) as reports:
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
                    found = await probe.when_due()
                    if found is not None and robot.client is client:
                        await self._probed(robot, *found)
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
        news = (
            bool(report.shares or report.removed or report.releases)
            or robot.daemon != report.daemon[:MAX_REASON]
        )
        robot.daemon = report.daemon[:MAX_REASON]
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
            robot.told.pop(name, None)
        if news:
            self._on_change(robot)

    async def command(self, robot: Robot, method: str, dataflow: str, params: Struct) -> None:
        """Call a method of an agent that returns the state of a share, and take that state.

        A report of the same generation that arrives before the answer is the newer one.

        Raises:
            ControlError: the robot refuses, or cannot be reached.
        """
        before = robot.shares.get(dataflow)
        state = await self.call(robot.id, method, params, ShareState)
        check_shares([state])
        state = short_share(state, MAX_USUAL)
        robot.sizes = sizes_after(robot.sizes, [state], ())
        known = robot.shares.get(dataflow)
        newer = known is before or known is None or known.generation < state.generation
        if newer and state.dataflow == dataflow:
            robot.shares[dataflow] = state
            self._on_change(robot)

    async def _probed(self, robot: Robot, skew: Skew, known: str) -> None:
        """Take a robot's answer about its clock and its head of the audit."""
        self._measured(robot, skew)
        try:
            await self._on_audit(robot, known)
        except ProblemError as error:
            _log.warning("the audit cannot be compared with what `%s` knows: %s", robot.id, error)

    async def order(self, robot: Robot, order: ReleaseOrder) -> None:
        """Give a robot an order about a release, and take its answer.

        A report of the same generation that arrives before the answer is the newer one.

        Raises:
            ControlError: the robot refuses, or cannot be reached.
        """
        before = robot.releases.get(order.dataflow)
        state = await self.call(robot.id, "release.order", order, ReleaseState)
        check_releases([state])
        state = short_release(state, MAX_USUAL)
        robot.sizes = sizes_after(robot.sizes, (), [state])
        robot.ordered[order.dataflow] = order.generation
        known = robot.releases.get(order.dataflow)
        newer = known is before or known is None or known.generation < state.generation
        if newer and state.dataflow == order.dataflow:
            robot.releases[order.dataflow] = state
        self._on_change(robot)

    def changed(self, robot: Robot) -> None:
        """Report that something about a robot was changed from outside."""
        self._on_change(robot)

    def _saw(self, robot: Robot) -> None:
        robot.seen_at, robot.seen = time.time(), time.monotonic()

    def _measured(self, robot: Robot, skew: Skew) -> None:
        """Take the skew of a robot's clock, and warn of a wrong one."""
        if skew.beyond(SKEW_S) and abs(skew.seconds - robot.skew.seconds) > SKEW_S:
            _log.warning("the clock of robot `%s` is off by %.0f s", robot.id, skew.seconds)
        robot.skew = skew
