"""The methods of the control API as typed methods of both clients.

Each is declared once, as a function that makes its request.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.control import messages as m
from dorad.control.arrays import to_message
from dorad.control.requests import Call, FileCall, Request, StreamCall

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence

    from dorad.control.stream import ArrayMessage
    from dorad.dataflow.model import Dataflow


def _nothing(_answer: object) -> None:
    """Return no result."""


class Methods:
    """One method for each method of the API.

    They raise ControlError with the server's code, such as `not-found`, `conflict` or `refused`;
    with `deadline` if it does not answer, and with `unavailable` if the connection ends.

    `dataflow` is a UUID or a name, by default the only running dataflow. `grace` is the seconds
    until SIGTERM. `node` is the id of a node, a topic is `node/output`.
    """

    @Call
    def status(self) -> Request[m.DaemonStatus]:
        """Return the state of the daemon."""
        return Request(m.DAEMON_STATUS, m.Nothing())

    @Call
    def leases(self) -> Request[builtins.list[m.Lease]]:
        """Return what must not be interrupted, the oldest first."""
        return Request(m.LEASE_LIST, m.Nothing(), lambda result: result.leases)

    @Call
    def take_lease(self, reason: str, ttl: float) -> Request[m.Lease]:
        """Take a lease for `ttl` seconds, at most a day."""
        return Request(m.LEASE_TAKE, m.LeaseTake(reason=reason, ttl=ttl))

    @StreamCall
    def hold_lease(self, reason: str) -> Request[m.Lease]:
        """Hold a lease as long as the stream is open. Its one event says that it holds."""
        return Request(m.LEASE_HOLD, m.LeaseTake(reason=reason))

    @Call
    def end_lease(self, lease_id: str) -> Request[None]:
        """End a lease that was taken for some time."""
        return Request(m.LEASE_END, m.LeaseRef(id=lease_id), _nothing)

    @Call
    def reserve_leases(self, key: str, seconds: float) -> Request[m.Reservation]:
        """Refuse new leases for some seconds, unless the robot has leases; 0 ends that."""
        return Request(m.LEASE_RESERVE, m.LeaseReserve(key=key, seconds=seconds))

    @Call
    def shutdown(self, *, force: bool = False) -> Request[None]:
        """Stop the daemon. Without `force` it is refused while dataflows run."""
        return Request(m.DAEMON_SHUTDOWN, m.Shutdown(force=force), _nothing)

    @FileCall
    def start(
        self,
        dataflow: str | Path | Dataflow,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        uv: bool = False,
        allow_shell: bool = False,
        exit_when_nodes_finish: bool | None = None,
        hot_reload: bool = False,
    ) -> Request[m.Started]:
        """Start the dataflow in a file, or one that is loaded already; see `wait`.

        `env` holds variables for all nodes.

        Raises:
            DataflowError: the file is invalid; it has all problems, by line and column.
        """
        if isinstance(dataflow, (str, Path)):
            # Here, because the file and its environment variables are the user's.
            from dorad.dataflow.load import load

            dataflow = load(dataflow)
        params = m.Start(
            descriptor=dict(dataflow.descriptor),
            path=str(dataflow.path.absolute()),
            name=name,
            env=dict(env or {}),
            uv=uv,
            allow_shell=allow_shell,
            exit_when_nodes_finish=exit_when_nodes_finish,
            hot_reload=hot_reload,
        )
        return Request(m.DATAFLOW_START, params)

    @Call
    def wait(
        self, dataflow: str, *, until: m.Until = "ended", timeout: float | None = None
    ) -> Request[m.DataflowState]:
        """Wait until all nodes are spawned or running, or until the dataflow has ended.

        Raises:
            ControlError: with code `deadline` after `timeout` seconds.
        """
        params = m.Wait(dataflow=dataflow, until=until, timeout=timeout)
        return Request(m.DATAFLOW_WAIT, params)

    @Call
    def open_barrier(self, dataflow: str) -> Request[None]:
        """Open the start barrier of a dataflow that was started with `hold`."""
        return Request(m.DATAFLOW_OPEN, m.Ref(dataflow=dataflow), _nothing)

    @Call
    def update(
        self,
        dataflow: str,
        descriptor: dict[str, Any],
        share: m.Share,
        params: dict[str, dict[str, Any]] | None = None,
    ) -> Request[m.Changed]:
        """Change this machine's share of a running dataflow to a new descriptor and placement."""
        update = m.Update(
            dataflow=dataflow, descriptor=descriptor, share=share, params=params or {}
        )
        return Request(m.DATAFLOW_UPDATE, update)

    @Call
    def stop(
        self, dataflow: str | None = None, *, grace: float | None = None, force: bool = False
    ) -> Request[m.DataflowState]:
        """Stop a dataflow and wait until it has ended; `force` kills its nodes at once."""
        params = m.Stop(dataflow=dataflow, grace=grace, force=force)
        return Request(m.DATAFLOW_STOP, params)

    @Call
    def enable(
        self, dataflow: str | None = None, *, enabled: bool = True
    ) -> Request[m.DataflowInfo]:
        """Choose whether a dataflow, running or ended, is started at boot."""
        params = m.Enable(dataflow=dataflow, enabled=enabled)
        return Request(m.DATAFLOW_ENABLE, params)

    @Call
    def restart(
        self, dataflow: str | None = None, *, grace: float | None = None, force: bool = False
    ) -> Request[m.Restarted]:
        """Stop a dataflow and start it again, including its changes since the start."""
        params = m.Stop(dataflow=dataflow, grace=grace, force=force)
        return Request(m.DATAFLOW_RESTART, params)

    @Call
    def list(self) -> Request[builtins.list[m.DataflowInfo]]:
        """Return all running dataflows, and those that have ended and were not cleaned."""
        return Request(m.DATAFLOW_LIST, m.Nothing(), lambda result: result.dataflows)

    @Call
    def info(self, dataflow: str | None = None) -> Request[m.DataflowDetail]:
        """Return one dataflow with its descriptor and paths."""
        return Request(m.DATAFLOW_INFO, m.Ref(dataflow=dataflow))

    @Call
    def clean(self) -> Request[builtins.list[m.DataflowInfo]]:
        """Remove dataflows that have ended from the list, and return them."""
        return Request(m.DATAFLOW_CLEAN, m.Nothing(), lambda result: result.dataflows)

    @Call
    def nodes(self, dataflow: str | None = None) -> Request[builtins.list[m.NodeInfo]]:
        """Return the nodes of one dataflow, or of all running dataflows."""
        return Request(m.NODE_LIST, m.Ref(dataflow=dataflow), lambda result: result.nodes)

    @Call
    def node_info(self, node: str, *, dataflow: str | None = None) -> Request[m.NodeDetail]:
        """Return one node with its inputs, its outputs and its policies."""
        params = m.NodeRef(node=node, dataflow=dataflow)
        return Request(m.NODE_INFO, params)

    @Call
    def add_node(
        self, definition: Mapping[str, Any], *, dataflow: str | None = None
    ) -> Request[m.Changed]:
        """Add a node to a running dataflow; `definition` is an entry of `nodes`."""
        params = m.NodeAdd(definition=dict(definition), dataflow=dataflow)
        return Request(m.NODE_ADD, params)

    @Call
    def remove_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> Request[m.Changed]:
        """Stop a node and remove it and its edges from its dataflow."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        return Request(m.NODE_REMOVE, params)

    @Call
    def replace_node(
        self,
        node: str,
        definition: Mapping[str, Any],
        *,
        dataflow: str | None = None,
        grace: float | None = None,
    ) -> Request[m.Changed]:
        """Replace a node by another one without losing messages to it."""
        params = m.NodeReplace(
            node=node, definition=dict(definition), dataflow=dataflow, grace=grace
        )
        return Request(m.NODE_REPLACE, params)

    @Call
    def connect(
        self,
        source: str,
        target: str,
        *,
        options: Mapping[str, Any] | None = None,
        dataflow: str | None = None,
    ) -> Request[m.Changed]:
        """Add an edge from `node/output` to `node/input`.

        `options` are those of an input in a dataflow file, such as `queue_size`.
        """
        params = m.EdgeNew(
            source=source, target=target, options=dict(options or {}), dataflow=dataflow
        )
        return Request(m.NODE_CONNECT, params)

    @Call
    def disconnect(
        self, source: str, target: str, *, dataflow: str | None = None
    ) -> Request[m.Changed]:
        """Remove the edge from `node/output` to `node/input`."""
        params = m.EdgeRef(source=source, target=target, dataflow=dataflow)
        return Request(m.NODE_DISCONNECT, params)

    @Call
    def restart_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> Request[None]:
        """Restart a node, regardless of its restart policy."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        return Request(m.NODE_RESTART, params, _nothing)

    @Call
    def stop_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> Request[None]:
        """Stop a node without restarting it."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        return Request(m.NODE_STOP, params, _nothing)

    @Call
    def top(self) -> Request[m.Top]:
        """Return the resource use of all nodes and the counters of all edges."""
        return Request(m.TOP, m.Nothing())

    @Call
    def history(
        self, dataflow: str | None = None, *, node: str | None = None
    ) -> Request[m.History]:
        """Return the figures of the last ten minutes: of all edges, or of a node and its edges."""
        return Request(m.TOP_HISTORY, m.TopHistory(dataflow=dataflow, node=node))

    @Call
    def robot_history(self, robots: Sequence[str] = ()) -> Request[m.RobotHistory]:
        """Return the figures of robots in the last ten minutes; a daemon has those of its own."""
        return Request(m.ROBOT_HISTORY, m.RobotHistoryQuery(robots=list(robots)))

    @StreamCall
    def watch_top(
        self,
        *,
        order: m.TopOrder = "name",
        limit: int = 0,
        filter: str = "",
        interval: float = 1.0,
        dataflow: str | None = None,
        machine: str | None = None,
    ) -> Request[m.TopPart]:
        """Measure nodes and edges every `interval` seconds, and return a part of them."""
        params = m.TopWatch(
            order=order,
            limit=limit,
            filter=filter,
            interval=interval,
            dataflow=dataflow,
            machine=machine,
        )
        return Request(m.TOP_WATCH, params)

    @StreamCall
    def watch_fleet(self, *, interval: float = 1.0) -> Request[m.FleetRows]:
        """Follow the robots: first all rows, then every `interval` seconds those that changed."""
        return Request(m.FLEET_WATCH, m.FleetWatch(interval=interval))

    @StreamCall
    def watch_alerts(self, *, interval: float = 1.0) -> Request[m.Alerts]:
        """Follow the alerts, checked every `interval` seconds."""
        return Request(m.ALERTS_WATCH, m.AlertWatch(interval=interval))

    @Call
    def past_alerts(self, *, limit: int = 100) -> Request[m.PastAlerts]:
        """Return the last alerts that are over, at most `limit`."""
        return Request(m.ALERTS_PAST, m.PastAlertsRead(limit=limit))

    @Call
    def ack_alert(self, id_: str, *, undo: bool = False) -> Request[m.Alert]:
        """Acknowledge an alert, or withdraw the acknowledgement."""
        return Request(m.ALERTS_ACK, m.AlertAck(id=id_, undo=undo))

    @Call
    def incidents(self, dataflow: str | None = None) -> Request[m.IncidentList]:
        """Return the incidents that the black boxes of one dataflow, or of all, have kept.

        The dataflow may have ended.
        """
        return Request(m.INCIDENT_LIST, m.Ref(dataflow=dataflow))

    @Call
    def mark_incident(
        self, dataflow: str | None, *, before: float = 60.0, after: float = 20.0, note: str = ""
    ) -> Request[m.IncidentMarked]:
        """Let the black boxes of a dataflow keep the seconds before and after this moment."""
        mark = m.IncidentMark(dataflow=dataflow, before=before, after=after, note=note)
        return Request(m.INCIDENT_MARK, mark)

    @Call
    def traces(
        self,
        dataflow: str | None = None,
        *,
        id: str = "",
        through: Sequence[str] = (),
        slow: bool = False,
        troubled: bool = False,
        min_duration: float = 0.0,
        limit: int = 20,
        spans: bool = False,
    ) -> Request[m.TraceList]:
        """Return traces of messages, the newest first, or the slowest; whole with `spans`."""
        params = m.TraceQuery(
            dataflow=dataflow,
            id=id,
            through=[*through],
            slow=slow,
            troubled=troubled,
            min_duration=min_duration,
            limit=limit,
            spans=spans,
        )
        return Request(m.TRACE_LIST, params)

    @Call
    def trace_paths(
        self, dataflow: str | None = None, *, through: Sequence[str] = ()
    ) -> Request[m.TracePaths]:
        """Return how long messages took on each path, and where their time went."""
        params = m.TracePathQuery(dataflow=dataflow, through=[*through])
        return Request(m.TRACE_PATHS, params)

    @StreamCall
    def follow_traces(self) -> Request[m.TraceBatch]:
        """Follow the traces that exporters of telemetry get."""
        return Request(m.TRACE_FOLLOW, m.Nothing())

    @Call
    def sample_traces(
        self, source: str = "", *, rate: float | None = 1.0
    ) -> Request[m.TraceSampling]:
        """Set how many traces a second of a source exporters get; None means no traces at all."""
        return Request(m.TRACE_SAMPLE, m.TraceSample(source=source, rate=rate))

    @Call
    def topics(self, dataflow: str | None = None) -> Request[m.TopicList]:
        """Return the outputs of a dataflow and their subscribers."""
        return Request(m.TOPIC_LIST, m.Ref(dataflow=dataflow))

    @StreamCall
    def watch_topics(
        self, topics: Sequence[str] = (), *, dataflow: str | None = None, window: int = 10
    ) -> Request[m.TopicRates]:
        """Measure outputs once a second, over `window` seconds. No topics means all of them."""
        params = m.TopicWatch(dataflow=dataflow, topics=[*topics], window=window)
        return Request(m.TOPIC_WATCH, params)

    @StreamCall
    def echo(
        self,
        topics: Sequence[str] = (),
        *,
        dataflow: str | None = None,
        queue_size: int = 64,
        max_rate_hz: float | None = None,
        preview: m.Preview | None = None,
    ) -> Request[ArrayMessage]:
        """Receive the messages of outputs as header and Arrow array. No topics means all of them.

        The array is None for a message without data. `max_rate_hz` limits the messages of each
        topic, `preview` makes them smaller where they come from.
        """
        params = m.TopicSubscribe(
            dataflow=dataflow,
            topics=[*topics],
            queue_size=queue_size,
            max_rate_hz=max_rate_hz,
            preview=preview,
        )
        return Request(m.TOPIC_SUBSCRIBE, params, to_message)

    @Call
    def publish(
        self,
        topic: str,
        data: Sequence[Any],
        *,
        dataflow: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Request[m.Published]:
        """Send messages on an output as if its node did. Each entry of `data` is one message."""
        params = m.TopicPublish(
            topic=topic, data=[*data], dataflow=dataflow, metadata=dict(metadata or {})
        )
        return Request(m.TOPIC_PUBLISH, params)

    @Call
    def params(self, node: str, *, dataflow: str | None = None) -> Request[builtins.list[m.Param]]:
        """Return the parameters of a node."""
        params = m.NodeRef(node=node, dataflow=dataflow)
        return Request(m.PARAM_LIST, params, lambda result: result.params)

    @Call
    def get_param(self, node: str, key: str, *, dataflow: str | None = None) -> Request[m.Param]:
        """Return one parameter of a node."""
        params = m.ParamRef(node=node, key=key, dataflow=dataflow)
        return Request(m.PARAM_GET, params)

    @Call
    def set_param(
        self, node: str, key: str, value: Any, *, dataflow: str | None = None
    ) -> Request[m.Param]:
        """Set a parameter to a JSON value and notify the node."""
        params = m.ParamSet(node=node, key=key, value=value, dataflow=dataflow)
        return Request(m.PARAM_SET, params)

    @Call
    def delete_param(self, node: str, key: str, *, dataflow: str | None = None) -> Request[None]:
        """Delete a parameter and notify the node."""
        params = m.ParamRef(node=node, key=key, dataflow=dataflow)
        return Request(m.PARAM_DELETE, params, _nothing)

    @StreamCall
    def logs(
        self,
        dataflow: str | None = None,
        *,
        nodes: Sequence[str] = (),
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        level: str | None = None,
        by_node: Mapping[str, str] | None = None,
        grep: str | None = None,
        follow: bool = False,
        machine: str | None = None,
    ) -> Request[m.LogLines]:
        """Read log lines, and follow new ones.

        `since` and `until` are in seconds since 1970, `tail` is the number of last lines. `level`
        is the least severe one, `by_node` replaces it for some nodes. `grep` ignores case.
        """
        params = m.LogRead(
            dataflow=dataflow,
            nodes=[*nodes],
            tail=tail,
            since=since,
            until=until,
            level=level,
            by_node=dict(by_node or {}),
            grep=grep,
            follow=follow,
            machine=machine,
        )
        return Request(m.LOGS_READ, params)

    @StreamCall
    def watch(self, dataflow: str | None = None) -> Request[m.Event]:
        """Follow the events of one dataflow, or of all of them."""
        return Request(m.WATCH, m.Watch(dataflow=dataflow))
