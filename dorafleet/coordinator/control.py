"""The parts of a leading coordinator that handle robots and dataflows, connected."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, NoReturn

from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.messages.agent import Attach
from dorad.control.session import HandlerTable
from dorafleet.coordinator.alertstore import AlertStore
from dorafleet.coordinator.connections import Connections, pause_of
from dorafleet.coordinator.daemon import DaemonMethods
from dorafleet.coordinator.dataflows import DataflowMethods
from dorafleet.coordinator.dataflowviews import DataflowViews
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.incidents import IncidentMethods
from dorafleet.coordinator.instances import Instances
from dorafleet.coordinator.lastseen import LastSeen
from dorafleet.coordinator.logs import LogMethods
from dorafleet.coordinator.memories import Memories
from dorafleet.coordinator.nodes import NodeMethods
from dorafleet.coordinator.notifications import Notifications
from dorafleet.coordinator.onerobot import alone, with_robots
from dorafleet.coordinator.planning import Planner
from dorafleet.coordinator.reconciler import Reconciler
from dorafleet.coordinator.recorded import recorded
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.robotmethods import RobotMethods
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.robotstreams import RobotStreams
from dorafleet.coordinator.rolloutdriver import RolloutDriver
from dorafleet.coordinator.rolloutmethods import RolloutMethods
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.secrets import Secrets
from dorafleet.coordinator.software import software_of
from dorafleet.coordinator.starting import Starter
from dorafleet.coordinator.supplying import Supplying
from dorafleet.coordinator.topics import TopicMethods
from dorafleet.coordinator.watching import FleetWatching
from dorafleet.notify.settings import NotifySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorad.control.messages.agent import Attached, Revocation
    from dorad.control.server import Handler, StreamHandler
    from dorafleet.coordinator.audit import Head
    from dorafleet.coordinator.handover import HandOvers
    from dorafleet.coordinator.records import Wanted
    from dorafleet.coordinator.renewing import Sign
    from dorafleet.coordinator.robot import Robot
    from dorafleet.coordinator.rows import Software
    from dorafleet.coordinator.supplying import Supply
    from dorafleet.coordinator.writing import Writer
    from dorafleet.inventory.model import Machine
    from dorafleet.store.model import Store

_log = logging.getLogger(__name__)


class FleetControl:
    """Robots, dataflows and what keeps them together. Only the leader has one."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        machines: Sequence[Machine],
        peer: str | None,
        end: Callable[[], None],
        sign: Sign | None = None,
        supply: Supply | None = None,
        notify: NotifySettings = NotifySettings(),  # noqa: B008  # it is frozen
        revocations: Callable[[], Sequence[Revocation]] = tuple,
        hand_overs: HandOvers | None = None,
    ) -> None:
        """`peer` is the endpoint that all links connect to; `end` lets the process end.

        `sign` renews the certificates of robots; `supply` has files of releases to send. `notify`
        says where alerts are sent; `revocations` returns the newest of the store. `hand_overs`
        is None where there are no certificates.
        """
        self._end = end
        self._peer = peer
        self._hand_overs = hand_overs
        self._term = secrets.token_hex(16)
        """Tells this term from that of a coordinator with a copy of the store."""
        self._event_bus = EventBus()
        self.fleet = Fleet(
            store,
            writer,
            lambda: alone(self.fleet, self.robots),
            lambda name: self._instances.find(name),
        )
        self.robots = Robots(machines, self._on_change)
        self._instances = Instances(self.fleet, self.robots)
        self._streams = RobotStreams(self.robots)
        self._memories = Memories(store, self.fleet, self.robots, revocations)
        self.connections = Connections(
            self.robots, self._attach, self._on_attached, self._memories, sign, hand_overs
        )
        self._planner = Planner(self.fleet, self.robots, peer)
        self._starter = Starter(self.fleet, self.robots, self._planner, self._event_bus)
        self._reconciler = Reconciler(
            self.fleet, self.robots, self._planner, self._starter, self._event_bus, peer
        )
        self.secrets = Secrets(store, writer, self.robots, self._planner)
        self.releases = Releases(store, self.fleet)
        self.rollouts = Rollouts(store, self.fleet)
        self.watching = FleetWatching(
            self.robots, self._planner, writer, AlertStore(store, writer), self._software
        )
        self.notifications = Notifications(notify, store, writer, self.watching.book.stored)
        self._last_seen = LastSeen(store, writer, self.robots)
        self.driver = RolloutDriver(self.fleet, self.robots, self.rollouts, self._planner)
        self._supplying = Supplying(supply, self.robots, self.rollouts, self.driver)

    async def load(self) -> None:
        """Read everything from the store. Raises ProblemError."""
        await self.fleet.load()
        await self.secrets.load()
        await self.releases.load()
        await self.releases.forget_unfinished()
        await self.rollouts.load()
        await self.rollouts.pause_restored()
        await self._last_seen.load(await self.watching.load())
        await self.notifications.load()

    @property
    def table(self) -> Mapping[str, Handler | StreamHandler]:
        """The handlers of the methods about robots and dataflows."""
        views = DataflowViews(self.fleet, self.robots, self._planner)
        dataflows = DataflowMethods(
            self.fleet, self.robots, self._planner, self._starter, self._reconciler, views
        )
        nodes = NodeMethods(
            self.fleet, self.robots, self._planner, self._reconciler, self._event_bus
        )
        table = HandlerTable()
        table.include(
            dataflows.table,
            views.table,
            DaemonMethods(self.fleet, self.robots, dataflows, self._end).table,
            nodes.table,
            TopicMethods(self.fleet, self.robots, self._streams).table,
            LogMethods(
                self.fleet, self.robots, self._instances, self._event_bus, self._streams
            ).table,
            IncidentMethods(self.fleet, self.robots).table,
            self.secrets.table,
            self.watching.table,
            self.notifications.table,
            RobotMethods(
                self.fleet,
                self.robots,
                self._planner,
                self._reconciler,
                self._memories,
                self._peer,
                self._hand_overs,
            ).table,
            RolloutMethods(
                self.fleet,
                self.robots,
                self.releases,
                self.rollouts,
                self.driver,
                self._supplying,
                self._planner,
                self.watching.rows,
                self.secrets,
            ).table,
        )
        passed_on = with_robots(table, self.fleet, self.robots, self._instances, self._streams)
        return recorded(passed_on, self.fleet.writer)

    @property
    def questions(self) -> list[str]:
        """What an operator has to decide after the store was restored."""
        found = []
        restored = self.fleet.restored
        if restored is not None and not restored.acknowledged:
            found.append(
                "the store was restored from a backup: later changes are missing, also "
                "revocations; check `dorafleet access` and what robots report, then `dorafleet "
                "audit acknowledge`"
            )
        found += [
            f"rollout {rollout.number}, {rollout.name}, is paused: {rollout.question}"
            for rollout in self.rollouts.open
            if rollout.question
        ]
        return found

    async def run(self) -> NoReturn:
        """Reconcile robots with the store, until cancelled. Call `load` before."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watching.run(), name="rows and alerts")
            tasks.create_task(self.notifications.run(), name="notifications")
            tasks.create_task(self._last_seen.run(), name="last states of robots")
            tasks.create_task(self.driver.run(), name="rollouts")
            tasks.create_task(self.secrets.run(), name="secrets")
            tasks.create_task(self._supplying.run(), name="files of releases")
            await self._reconciler.run()

    def on_desired(
        self, robot: str, dataflow: str, wanted: Wanted, revision: int, head: Head
    ) -> None:
        """Follow a desired state that a client has set."""
        self.fleet.follow(robot, dataflow, wanted, revision, head)
        if robot in self.robots.machines:
            self.driver.mark(robot)

    def _software(self, robot: str) -> Software:
        return software_of(robot, self.robots, self.rollouts, self.releases)

    def _attach(self, robot: Robot) -> Attach:
        return Attach(
            coordinator=f"{socket.gethostname()}:{os.getpid()}",
            epoch=self.fleet.writer.epoch,
            audit=str(self.fleet.writer.head or self.fleet.head),
            time=time.time(),
            pause=pause_of(len(self.robots.machines)),
            term=self._term,
            takes_over=robot.takes_over,
        )

    async def _on_attached(self, robot: Robot, attach: Attach, attached: Attached) -> None:
        """Compare a robot's knowledge of earlier coordinators with the store."""
        if attached.epoch > attach.epoch and not attach.takes_over:
            robot.outranked = True
            raise ControlError("refused", f"it has obeyed the coordinator of term {attached.epoch}")
        robot.takes_over = False
        await self._memories.attached(robot, attach, attached)

    def _on_change(self, robot: Robot) -> None:
        self.fleet.bell.ring()
        self._reconciler.mark(robot.id)
        self.watching.mark(robot)
        self._last_seen.mark(robot)
        self.secrets.mark()
        self.driver.mark(robot.id)
