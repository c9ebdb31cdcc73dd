"""The parts of a leading coordinator that handle robots and dataflows, connected."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.messages.agent import Attach, Attached, Revocation
from dorad.control.server import Handler, StreamHandler
from dorad.control.session import HandlerTable
from dorafleet.coordinator.alertstore import AlertStore
from dorafleet.coordinator.auditmemories import AuditMemories
from dorafleet.coordinator.connections import Connections, pause_of
from dorafleet.coordinator.copies import Copies
from dorafleet.coordinator.daemon import DaemonMethods
from dorafleet.coordinator.dataflows import DataflowMethods
from dorafleet.coordinator.delivery import Delivery
from dorafleet.coordinator.deploymentmethods import DeploymentMethods
from dorafleet.coordinator.fileconnections import FileConnections
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.incidents import IncidentMethods
from dorafleet.coordinator.incidentuploads import IncidentUploads
from dorafleet.coordinator.instances import Instances
from dorafleet.coordinator.keptincidents import KeptIncidents
from dorafleet.coordinator.keptreleases import Folder, KeptReleases
from dorafleet.coordinator.lastseen import LastSeen
from dorafleet.coordinator.load import FleetLoadMethods
from dorafleet.coordinator.logs import LogMethods
from dorafleet.coordinator.membermethods import Dismiss, MemberMethods
from dorafleet.coordinator.members import Members
from dorafleet.coordinator.nodeaudit import recorded
from dorafleet.coordinator.nodes import NodeMethods
from dorafleet.coordinator.notifications import Notifications
from dorafleet.coordinator.onerobot import alone, with_robots
from dorafleet.coordinator.overview import FleetOverview
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.renewal import Sign
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robotmethods import RobotMethods
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.robotstreams import RobotStreams
from dorafleet.coordinator.rolloutdriver import RolloutDriver
from dorafleet.coordinator.rolloutmethods import RolloutMethods
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.rows import Software
from dorafleet.coordinator.runs import Runs
from dorafleet.coordinator.secretmethods import SecretMethods
from dorafleet.coordinator.secrets import Secrets
from dorafleet.coordinator.software import software_of
from dorafleet.coordinator.starter import Starter
from dorafleet.coordinator.supply import ReleaseSupply, Supply
from dorafleet.coordinator.topics import TopicMethods
from dorafleet.coordinator.traces import TraceMethods
from dorafleet.coordinator.uploads import Uploads
from dorafleet.coordinator.writer import Writer
from dorafleet.notify.settings import NotifySettings
from dorafleet.store.model import Store

_log = logging.getLogger(__name__)


class FleetControl:
    """Robots, dataflows and what keeps them together. Only the leader has one."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        members: Members,
        peer: str | None,
        end: Callable[[], None],
        sign: Sign | None = None,
        supply: Supply | None = None,
        notify: NotifySettings = NotifySettings(),  # noqa: B008  # it is frozen
        revocations: Callable[[], Sequence[Revocation]] = tuple,
        hand_overs: HandOvers | None = None,
        dismiss: Dismiss | None = None,
        uploads: Folder | None = None,
        *,
        incidents: KeptIncidents,
    ) -> None:
        """`members` are the machines, which are loaded. `peer` is the endpoint that all links
        connect to; `end` lets the process end.

        `sign` renews the certificates of robots; `supply` has files of releases to send, also those
        that operators have uploaded to the folder `uploads`. `notify` says where alerts are sent;
        `revocations` returns the newest of the store. `hand_overs` is None where there are no
        certificates. `dismiss` takes the certificates of a robot that leaves. `incidents` are those
        that robots upload.
        """
        self._end = end
        self._peer = peer
        self._term = secrets.token_hex(16)
        """Tells this term from that of a coordinator with a copy of the store."""
        self._event_bus = EventBus()
        self.fleet = Fleet(
            store,
            writer,
            lambda robots: self._delivery.mark(robots),
            lambda: alone(self.fleet, self.robots),
            lambda name: self._instances.find(name),
        )
        self.members = members
        self._dismiss = dismiss
        self.robots = Robots(members.machines.values(), members.since, self._on_change)
        self._instances = Instances(self.fleet, self.robots)
        self._streams = RobotStreams(self.robots)
        self._memories = AuditMemories(store, self.fleet, self.robots, revocations)
        self.connections = Connections(
            self.robots, self._attach, self._on_attached, self._memories, sign, hand_overs
        )
        self.releases = Releases(store, self.fleet)
        self.rollouts = Rollouts(store, self.fleet)
        self._planner = Planner(self.fleet, self.robots, self.releases, self.rollouts, peer)
        self._starter = Starter(
            self.fleet, self.robots, self._planner, self._event_bus, self.rollouts.unfinished
        )
        self._runs = Runs(self.fleet, self.robots, self._planner, self._starter, self._event_bus)
        self.secrets = Secrets(store, writer, self.robots, self._planner)
        self._delivery = Delivery(self.fleet, self.robots, self.rollouts, peer)
        self.overview = FleetOverview(
            self.robots,
            self._planner,
            writer,
            AlertStore(store, writer),
            self._memories,
            self.secrets,
            hand_overs,
            self._software,
        )
        self.notifications = Notifications(notify, store, writer, self.overview.book.stored)
        self.files = FileConnections(self.robots)
        self._last_seen = LastSeen(store, writer, self.robots)
        self.driver = RolloutDriver(self.fleet, self.robots, self.rollouts, self._planner)
        self.kept = KeptReleases(
            uploads, store, self.fleet, self.robots, self.releases, self.rollouts
        )
        self._supply = ReleaseSupply(
            supply, self.robots, self.rollouts, self.driver, self.files, self.kept.elsewhere
        )
        self.copies = Copies(self.kept, supply, self._supply.look_again)
        self.uploads = Uploads(self.kept, self.releases, self._supply.trouble, self._on_uploaded)
        self.incidents = IncidentUploads(incidents, writer)

    async def load(self) -> None:
        """Read everything from the store. Raises ProblemError."""
        await self.fleet.load()
        await self.secrets.load()
        await self.releases.load()
        await self.releases.forget_unfinished()
        await self.kept.load()
        await self.rollouts.load()
        await self.rollouts.pause_restored()
        await self._last_seen.load(await self.overview.load())
        await self.notifications.load()

    @property
    def table(self) -> Mapping[str, Handler | StreamHandler]:
        """The handlers of the methods about robots and dataflows."""
        dataflows = DataflowMethods(self.fleet, self.robots, self._planner, self._starter)
        topics = TopicMethods(self.fleet, self.robots, self._streams)
        load = FleetLoadMethods(
            self.fleet,
            self.robots,
            self._instances,
            self._planner,
            lambda ids: topics.measure((), ids),
        )
        table = HandlerTable.of(
            dataflows,
            DaemonMethods(self.fleet, self.robots, dataflows, self.overview, self._end),
            NodeMethods(self.fleet, self.robots, self._planner, self._event_bus),
            DeploymentMethods(
                self.fleet, self.robots, self.releases, self.rollouts, dataflows, self._planner
            ),
            topics,
            load,
            LogMethods(self.fleet, self.robots, self._instances, self._event_bus, self._streams),
            IncidentMethods(self.fleet, self.robots),
            TraceMethods(self.fleet, self.robots),
            self.uploads,
            self.copies,
            self.incidents,
            SecretMethods(self.secrets, self.robots, self.fleet.writer),
            MemberMethods(
                self.members,
                self.fleet,
                self.robots,
                self._planner,
                self.rollouts,
                self.secrets,
                self._dismiss,
                self._forget,
            ),
            self.overview,
            self.notifications,
            RobotMethods(
                self.fleet,
                self.robots,
                self._planner,
                self._memories,
                self._peer,
                self.overview,
            ),
            RolloutMethods(
                self.fleet,
                self.robots,
                self.releases,
                self.rollouts,
                self.driver,
                self._supply,
                self._planner,
                self.overview.rows,
                self.secrets,
                self.members,
                self.copies,
            ),
        )
        passed_on = with_robots(table, self.fleet, self.robots, self._instances, self._streams)
        return recorded(passed_on, self.fleet.writer)

    @property
    def questions(self) -> list[str]:
        """What an operator has to decide after a restore, and files that he has to bring."""
        undecided = []
        restored = self.fleet.restored
        if restored is not None and not restored.acknowledged:
            undecided.append(
                "the store was restored from a backup: later changes are missing, also "
                "revocations; check `dorafleet access` and what robots report, then `dorafleet "
                "audit acknowledge`"
            )
        undecided += [
            f"rollout {rollout.number}, {rollout.name}, is paused: {rollout.question}"
            for rollout in self.rollouts.open
            if rollout.question
        ]
        return undecided + self.copies.warnings

    async def run(self) -> NoReturn:
        """Bring robots to what the store says, until cancelled. Call `load` before."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.overview.run(), name="rows and alerts")
            tasks.create_task(self.notifications.run(), name="notifications")
            tasks.create_task(self._last_seen.run(), name="last states of robots")
            tasks.create_task(self.driver.run(), name="rollouts")
            tasks.create_task(self.secrets.run(), name="secrets")
            tasks.create_task(self._supply.run(), name="files of releases")
            tasks.create_task(self.uploads.run(), name="uploaded files")
            tasks.create_task(self.incidents.run(), name="incidents")
            tasks.create_task(self._delivery.run(), name="delivery")
            await self._runs.run()

    async def _forget(self, robot: str) -> None:
        """Forget what was measured of a robot that has left."""
        self._last_seen.forget(robot)
        await self.overview.forget(robot)
        self.fleet.bell.ring()

    def _on_uploaded(self, release: str) -> None:
        self._supply.look_again(release)
        self.copies.changed()

    def _software(self, robot: str) -> Software:
        return software_of(robot, self.fleet, self.robots, self.rollouts, self.releases)

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
        self._delivery.mark([robot.id])
        self.overview.mark(robot)
        self._last_seen.mark(robot)
        self.secrets.mark()
