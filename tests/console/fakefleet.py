"""A server with many robots in this process, over a real socket."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request as HttpRequest

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.alertbook import AlertBook, PastAlertBook
from dorad.control.arrays import to_ipc
from dorad.control.errors import ControlError
from dorad.control.limits import Limits
from dorad.control.peer import Peer, PeerRole
from dorad.control.roles import with_role_check
from dorad.control.rowdeltas import RowDeltas
from dorad.control.server import Call, ControlServer, Handler, StreamHandler
from dorad.control.target import UnixSocket
from dorad.control.topparts import interval, reduction
from dorad.daemon.measuring.summary import failed_text
from dorad.logrecord import LogRecord
from dorad.logs.selection import select
from dorad.release.changes import Changes
from dorad.trace.store import choose
from dorafleet.console.view.releaserows import label
from dorafleet.coordinator.deploymentmessages import DeploymentInfo, DeploymentList
from dorafleet.coordinator.messages import (
    METHODS,
    AlertReceivers,
    AuditPage,
    AuditRead,
    AuditRecord,
)
from dorafleet.rollout.messages import (
    PlannedRobot,
    ReleaseInfo,
    ReleaseList,
    RolloutDetail,
    RolloutList,
    RolloutNew,
    RolloutPlan,
    RolloutRef,
    RolloutSummary,
    RolloutUpdate,
    RolloutWatch,
)
from dorafleet.rollout.strategy import Strategy

CHANGES = (
    *("node.restart", "node.stop", "dataflow.stop", "dataflow.restart"),
    *("rollout.pause", "rollout.resume", "rollout.promote", "rollout.abort", "rollout.undo"),
    *("rollout.start", "param.set", "param.delete", "incident.mark"),
)
"""Methods that only keep what they were called with."""

NOW = 1_800_000_000.0
"""The time of day in golden screens: what has happened is said relative to the real time."""


def node(robot: str, name: str, **fields: Any) -> m.NodeInfo:
    given: dict[str, Any] = {
        "dataflow": "11111111-1111-4111-8111-111111111111",
        "dataflow_name": "pick",
        "node": name,
        "status": "running",
        "pid": 1000,
        "restarts": 0,
        "metrics": m.NodeMetrics(cpu=3.0, memory=50_000_000),
        "machine": robot,
    }
    return m.NodeInfo(**{**given, **fields})


def edge(robot: str, source: str, target: str, **fields: Any) -> m.EdgeStats:
    given: dict[str, Any] = {
        "dataflow": "11111111-1111-4111-8111-111111111111",
        "source": source,
        "target": target,
        "queue_size": 10,
        "sent": 1000,
        "received": 1000,
        "dropped": 0,
        "queued": 0,
        "payload": 8000,
        "rate": 29.8,
        "drop_rate": 0.0,
        "bandwidth": 240.0,
        "latency": 0.0003,
        "jitter": 0.0001,
        "machine": robot,
    }
    return m.EdgeStats(**{**given, **fields})


def line(
    text: str, node: str = "camera", level: str = "info", at: float | None = None
) -> LogRecord:
    """Return a log line; `at` is by default now."""
    return LogRecord(timestamp=at or time.time(), level=level, node=node, message=text)


class _Server(ControlServer):
    """A server whose local clients have one role, as those of a coordinator have."""

    def __init__(self, role: PeerRole, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._role = role

    def _authenticate_peer(self, connection: ServerConnection, request: HttpRequest) -> Peer:
        return super()._authenticate_peer(connection, request)._replace(role=self._role)


class FakeFleet:
    """Robots, and a coordinator that answers for them."""

    def __init__(self, robots: int = 500, nodes: int = 40, role: PeerRole = "admin") -> None:
        self.role = role
        self.rows: dict[str, m.FleetRow] = {}
        self.nodes = nodes
        self.book = AlertBook()
        self.ended = PastAlertBook()
        self.bell = Bell()
        self.changes: list[tuple[str, m.Struct]] = []
        """Calls that change something."""
        self.audit: list[dict[str, Any]] = []
        """What has been changed, with authors."""
        self.audit_head = ""
        """What ends the audit; empty for the number of its last record."""
        self.audit_reads: list[AuditRead] = []
        self.refuses: dict[str, str] = {}
        """Why changes of a dataflow are refused, by its name."""
        self.update: RolloutUpdate | None = None
        """What `rollout.watch` says; None for a server without it."""
        self.past: list[RolloutSummary] = []
        """Rollouts that `rollout.status` knows, and `rollout.watch` no longer lists."""
        self.dataflows: list[m.DataflowInfo] = []
        self.deployments: list[DeploymentInfo] = []
        self.params: dict[str, list[m.Param]] = {}
        """The parameters of a node, by its dataflow."""
        self.releases: list[ReleaseInfo] = []
        self.planned = Changes(replaced=["planner"], untouched=["camera"], size=1_200_000)
        """What a plan changes on each robot."""
        self.running: dict[str, str] = {}
        """The release that a robot has before a plan."""
        self.plan_version = 1
        self.plans = 0
        """How often a plan was asked for."""
        self.delivers = True
        """Whether running nodes get new values of parameters at once."""
        self.without: tuple[str, ...] = ()
        """Methods that it does not have, as an older server."""
        self.hangs = False
        """Whether it answers no ping."""
        self.receivers = AlertReceivers(receivers=[])
        self.ends = asyncio.Event()
        """Set to end all streams of rows regularly, which no server does."""
        self.answers = asyncio.Event()
        """Set unless rows and measurements are still to come."""
        self.answers.set()
        self.read_logs: StreamHandler | None = None
        """Answers `logs.read` instead of `lines`."""
        self.outputs = ["image"]
        """The outputs of the node `camera`."""
        self.rates_asked = 0
        """How often rates of topics were asked for."""
        self.top: Callable[[], m.Top] = self.all_nodes_and_edges
        """Returns what `top.watch` sends."""
        self.lines: list[LogRecord] = []
        self.log_reads: list[m.LogRead] = []
        self.histories: dict[str, m.History] = {}
        """What `top.history` says, by dataflow."""
        self.robot_histories: dict[str, m.RobotCurves] = {}
        """What `robot.history` says, by robot."""
        self.histories_asked: list[m.RobotHistoryQuery | m.TopHistory] = []
        self.traces: list[m.Trace] = []
        """What `trace.list` chooses from."""
        self.trace_paths: list[m.TracePath] = []
        self.trace_counts = m.TraceCounts()
        self.boxless: set[str] = set()
        """Dataflows without a black box."""
        self.tells_boxes = asyncio.Event()
        """Set unless what is said of black boxes is still to come."""
        self.tells_boxes.set()
        self.unmarked: dict[str, str] = {}
        """Robots that make no incident, with the reasons."""
        self.descriptors: dict[str, list[str]] = {}
        """The nodes of dataflows, by what the server is asked about."""
        self.messages: list[tuple[str, pa.Array, dict[str, Any]]] = []
        """What an output sends, each once: a subscriber gets nothing from before."""
        self._sent = 0
        self.subscriptions: list[m.TopicSubscribe] = []
        self.edges: list[m.EdgeStats] = []
        self.pause = 0.05
        """Maximum seconds between two events of rows."""
        self.streams = 0
        """Streams that are open."""
        self.clock = 0.0
        """The clock of the alerts, in seconds."""
        self._server: ControlServer | None = None
        for number in range(1, robots + 1):
            self.put(f"arm{number:03}")

    def put(self, robot: str, **fields: Any) -> None:
        """Describe a robot from now on."""
        given: dict[str, Any] = {
            "robot": robot,
            "dataflow": "pick",
            "nodes": self.nodes,
            "running": self.nodes,
            "cpu": 31.0,
            "memory": 20.0,
            "since": time.time() - 86_400 * 6,
            "seen_at": time.time(),
            "labels": {"zone": "hall" if int(robot[-1]) % 2 else "yard"}
            if robot[-1].isdigit()
            else {},
            "version": "0.2.0",
        }
        self.rows[robot] = m.FleetRow(**{**given, **fields})
        self.bell.ring()

    def fail(
        self,
        robot: str,
        name: str = "gripper",
        seconds: float = 192.0,
        cause: str = "node-failed",
        error: str = "",
    ) -> None:
        """Let a node of a robot fail; with the cause `node-restarts` it is restarted."""
        text = failed_text(name, "failed", "signal 11", error)
        finding = m.Finding(
            cause=cause,
            subject=f"pick/{name}",
            text=text,
            severity="fail",
            since=time.time() - seconds,
            dataflow="pick",
            node=name,
            event=True,
            error=error,
        )
        self.put(
            robot,
            state="fail",
            why=text,
            since=finding.since,
            running=self.nodes - 1,
            findings=[finding],
        )
        self.judge()

    def judge(self, seconds: float = 0.0) -> None:
        """Let time pass, and judge what is wrong now."""
        self.clock += seconds
        found = {r.robot: r.findings for r in self.rows.values()}
        self.ended.add(self.book.observe(self.clock, found), time.time())
        self.bell.ring()

    def all_nodes_and_edges(self) -> m.Top:
        robots = list(self.rows)
        return m.Top(
            at=time.time(),
            window=3.0,
            nodes=[node(r, f"node{n:02}") for r in robots for n in range(self.nodes)],
            edges=self.edges
            or [
                edge(r, f"node{n:02}/out", f"node{n + 1:02}/in")
                for r in robots
                for n in range(self.nodes - 1)
            ],
        )

    async def serve(self, path: Path) -> None:
        def peer(_sock: socket.socket) -> Peer:
            return Peer(1, os.getuid(), os.getgid(), name="ana")

        handlers: dict[str, Handler | StreamHandler] = {
            "daemon.status": self._status,
            "fleet.watch": self._rows,
            "alerts.watch": self._alerts,
            "alerts.past": self._past_alerts,
            "alerts.ack": self._ack,
            "alerts.receivers": self._receivers,
            "audit.read": self._audit,
            "top.watch": self._top,
            "top.history": self._history,
            "robot.history": self._robot_history,
            "trace.list": self._traces,
            "trace.paths": self._trace_paths,
            "incident.list": self._boxes,
            "node.info": self._node,
            "dataflow.info": self._dataflow,
            "logs.read": self.read_logs or self._stored,
            "topic.list": self._topics,
            "dataflow.list": self._dataflows,
            "deployment.list": self._deployments,
            "dataflow.wait": self._wait,
            "param.list": self._params,
            "release.list": self._releases,
            "rollout.plan": self._plan,
            "topic.watch": self._rates,
            "topic.subscribe": self._subscribe,
            **(
                {}
                if self.update is None
                else {
                    "rollout.watch": self._rollouts,
                    "rollout.status": self._rollout,
                    "rollout.list": self._all_rollouts,
                }
            ),
            **dict.fromkeys(CHANGES, self._change),
        }
        self._server = _Server(
            self.role,
            with_role_check(
                {name: each for name, each in handlers.items() if name not in self.without},
                METHODS,
            ),
            version="1.0",
            methods=METHODS,
            name="dorafleet",
            credentials=peer,
            limits=Limits(),
        )
        await self._server.serve(path)

    async def _status(self, _call: Call, _params: m.Nothing) -> m.DaemonStatus:
        if self.hangs:
            await asyncio.Event().wait()
        return m.DaemonStatus(
            version="1", protocol=1, pid=1, started_at=0, dataflows=1, nodes=1, state=""
        )

    async def _rows(self, _call: Call, params: m.FleetWatch) -> AsyncIterator[m.FleetRows]:
        deltas = RowDeltas()
        await self.answers.wait()
        while not self.ends.is_set():
            changed = deltas.take(list(self.rows.values()))
            if changed is None:
                await self.bell.wait()
            else:
                yield changed
                await asyncio.sleep(min(interval(params), self.pause))

    async def _alerts(self, _call: Call, _params: m.AlertWatch) -> AsyncIterator[m.Alerts]:
        sent = None
        while True:
            found = self.book.alerts()
            if found != sent:
                sent = found
                yield m.Alerts(at=time.time(), alerts=found)
            await self.bell.wait()

    async def _receivers(self, _call: Call, _params: m.Nothing) -> AlertReceivers:
        return self.receivers

    async def _past_alerts(self, _call: Call, params: m.PastAlertsRead) -> m.PastAlerts:
        return m.PastAlerts(alerts=self.ended.latest(params.limit))

    async def _audit(self, _call: Call, params: AuditRead) -> AuditPage:
        self.audit_reads.append(params)
        found = self.audit[params.after : params.after + params.limit]
        records = [
            AuditRecord(sequence=params.after + at, hash="0", record=each)
            for at, each in enumerate(found, start=1)
        ]
        head = self.audit_head or f"{len(self.audit)}:{'0' * 64}"
        return AuditPage(records=records, head=head)

    async def _ack(self, call: Call, params: m.AlertAck) -> m.Alert:
        self.changes.append((call.method, params))
        alert = self.book.ack(params.id, "ana", time.time(), undo=params.undo)
        self.bell.ring()
        return alert

    async def _top(self, _call: Call, params: m.TopWatch) -> AsyncIterator[m.TopPart]:
        reduce = reduction(msgspec.structs.replace(params, dataflow=None))
        self.streams += 1
        try:
            await self.answers.wait()
            while True:
                yield reduce(self.top())
                await self.bell.wait(interval(params))
        finally:
            self.streams -= 1

    async def _stored(self, _call: Call, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        self.streams += 1
        self.log_reads.append(params)
        wanted = select(params.nodes, since=params.since, until=params.until, grep=params.grep)
        sent, tail = 0, params.tail
        try:
            while True:
                lines, sent = self.lines[sent:], len(self.lines)
                lines = [each for each in lines if wanted.passes(each)]
                if tail is not None:
                    lines, tail = lines[-tail:] if tail else [], None
                for at in range(0, len(lines), 500):
                    yield m.LogLines(dataflow="pick", lines=lines[at : at + 500])
                if not params.follow:
                    return
                await self.bell.wait()
        finally:
            self.streams -= 1

    async def _robot_history(self, _call: Call, params: m.RobotHistoryQuery) -> m.RobotHistory:
        self.histories_asked.append(params)
        known = self.robot_histories
        return m.RobotHistory(robots={each: known[each] for each in params.robots if each in known})

    async def _traces(self, _call: Call, params: m.TraceQuery) -> m.TraceList:
        known = [(replace(each, spans=[]), lambda each=each: each) for each in self.traces]
        traces, left_out = choose(known, params)
        return m.TraceList(traces=traces, counts=self.trace_counts, left_out=left_out)

    async def _trace_paths(self, _call: Call, _params: m.TracePathQuery) -> m.TracePaths:
        return m.TracePaths(paths=self.trace_paths, counts=self.trace_counts)

    async def _boxes(self, _call: Call, params: m.Ref) -> m.IncidentList:
        await self.tells_boxes.wait()
        if params.dataflow in self.boxless:
            return m.IncidentList(boxes=[])
        box = m.BlackBox(f"arm001/{params.dataflow}", params.dataflow, "/box", [], machine="arm001")
        return m.IncidentList(boxes=[box])

    async def _node(self, _call: Call, params: m.NodeRef) -> m.NodeDetail:
        readers = [m.Subscriber(node="planner", input="image")]
        info = node((params.dataflow or "").partition("/")[0], params.node)
        return m.NodeDetail(
            info, "node.py", None, "never", 0, *[None] * 5, inputs={}, outputs={"image": readers}
        )

    async def _dataflow(self, _call: Call, params: m.Ref) -> m.DataflowDetail:
        if (names := self.descriptors.get(params.dataflow or "")) is None:
            raise ControlError("not-found", f"no dataflow is named '{params.dataflow}'")
        robot = (params.dataflow or "").partition("/")[0]
        info = m.DataflowInfo(
            uuid="a", name="pick", status="running", nodes=len(names), cpu=0.0, memory=0,
            started_at=0.0, machines=[robot],
        )  # fmt: skip
        nodes = [{"id": each} for each in names]
        return m.DataflowDetail(info=info, descriptor={"nodes": nodes}, path="", log_dir="")

    async def _history(self, _call: Call, params: m.TopHistory) -> m.History:
        self.histories_asked.append(params)
        history = self.histories.get(params.dataflow or "")
        if history is None:
            raise ControlError("not-found", f"no dataflow is named '{params.dataflow}'")
        return history

    async def _topics(self, _call: Call, _params: m.Ref) -> m.TopicList:
        sub = [m.Subscriber(node="planner", input="in")]
        found = [m.TopicInfo(node="camera", output=each, subscribers=sub) for each in self.outputs]
        return m.TopicList(dataflow="pick", topics=found)

    async def _deployments(self, _call: Call, _params: m.Nothing) -> DeploymentList:
        return DeploymentList(deployments=self.deployments)

    async def _dataflows(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        return m.DataflowList(dataflows=self.dataflows)

    async def _params(self, _call: Call, params: m.NodeRef) -> m.ParamList:
        if (found := self.params.get(params.dataflow or "")) is None:
            raise ControlError("not-found", f"no dataflow is named '{params.dataflow}'")
        return m.ParamList(params=found)

    async def _wait(self, _call: Call, params: m.Wait) -> m.DataflowState:
        return m.DataflowState(uuid=params.dataflow, name="pick", status="running")

    async def _releases(self, _call: Call, _params: m.Nothing) -> ReleaseList:
        return ReleaseList(releases=self.releases)

    async def _plan(self, _call: Call, params: RolloutNew) -> RolloutPlan:
        self.plans += 1
        found = [
            each for each in self.releases if params.release in (label(each), each.id, each.id[:12])
        ]
        if not found:
            raise ControlError("not-found", f"no release `{params.release}` is registered")
        chosen = [each for each in self.rows if not params.robots or each in params.robots]
        robots = [
            PlannedRobot(
                robot=each,
                batch=min(place, 1),
                before=self.running.get(each, ""),
                changes=0,
                room=5_000_000_000,
            )
            for place, each in enumerate(chosen)
        ]
        return RolloutPlan(
            version=self.plan_version,
            release=found[0],
            robots=robots,
            changes=[self.planned],
            parallel=2,
            tolerated=1,
            names={found[0].id: label(found[0])},
        )

    async def _rates(self, _call: Call, _params: m.TopicWatch) -> AsyncIterator[m.TopicRates]:
        self.rates_asked += 1
        rate = m.TopicRate(topic="camera/image", hz=29.8, bandwidth=1e6, count=298)
        while True:
            yield m.TopicRates(at=time.time(), rates=[rate])
            await self.bell.wait(1.0)

    async def _subscribe(
        self, call: Call, params: m.TopicSubscribe
    ) -> AsyncIterator[tuple[m.TopicHeader, memoryview]]:
        self.subscriptions.append(params)
        number = 0
        while True:
            while self._sent < len(self.messages):
                topic, array, metadata = self.messages[self._sent]
                self._sent += 1
                number += 1
                header = m.TopicHeader(
                    stream=call.id, topic=topic, sequence=number, dropped=0, metadata=metadata
                )
                yield header, to_ipc(array)
            await self.bell.wait()

    async def _rollouts(self, _call: Call, params: RolloutWatch) -> AsyncIterator[RolloutUpdate]:
        assert self.update is not None
        known = self.update.rollouts + self.past
        wanted = [each for each in known if each.rollout == params.rollout]
        if params.rollout is not None and not wanted:
            raise ControlError("not-found", f"there is no rollout {params.rollout}")
        if params.rollout is None:
            yield self.update
        else:
            robots = [each for each in self.update.robots if each.rollout == params.rollout]
            yield RolloutUpdate(rollouts=wanted, robots=robots)
        await asyncio.Event().wait()

    async def _rollout(self, _call: Call, params: RolloutRef) -> RolloutDetail:
        if not self.past:
            raise ControlError("not-found", "there is no rollout")
        (found,) = (each for each in self.past if params.rollout in (None, each.rollout))
        robots = [] if self.update is None else self.update.robots
        return RolloutDetail(summary=found, strategy=Strategy(), robots=list(robots))

    async def _all_rollouts(self, _call: Call, _params: RolloutRef) -> RolloutList:
        assert self.update is not None
        return RolloutList(rollouts=self.update.rollouts + self.past)

    async def _change(self, call: Call, params: m.Struct) -> m.Struct:
        self.changes.append((call.method, params))
        if why := self.refuses.get(getattr(params, "dataflow", None) or ""):
            raise ControlError("refused", why)
        if call.method == "dataflow.restart":
            return m.Restarted(old="a", new="b")
        if call.method == "param.set":
            assert isinstance(params, m.ParamSet)
            return m.Param(key=params.key, value=params.value, delivered=self.delivers)
        if call.method == "rollout.start":
            assert isinstance(params, RolloutNew)
            if params.if_version != self.plan_version:
                raise ControlError("conflict", "the plan is no longer valid", "plan it again")
        if call.method.startswith("rollout."):
            assert self.update is not None
            return self.update.rollouts[0]
        if call.method == "incident.mark":
            return m.IncidentMarked(
                made={"arm001": "incident 20260501 in /box"}, failed=self.unmarked
            )
        if call.method == "dataflow.stop":
            return m.DataflowState(uuid="a", name="pick", status="finished")
        return m.Nothing()

    async def listen(self) -> int:
        """Serve over TCP, too, as a coordinator; return the port."""
        assert self._server is not None
        sock = socket.create_server(("127.0.0.1", 0))
        await self._server.serve_tcp(sock, lambda *_: Peer(0, 0, 0, name="ana", role=self.role))
        port: int = sock.getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None


@asynccontextmanager
async def serving(fleet: FakeFleet, folder: Path) -> AsyncIterator[UnixSocket]:
    path = folder / "control.sock"
    await fleet.serve(path)
    try:
        yield UnixSocket(path)
    finally:
        await fleet.close()
