"""The methods of the control API as typed methods of a client for asyncio.

Generated from `methods.py` by `make generate`; do not edit.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from dorad.control import messages as m
from dorad.control.loading import start_request

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dorad.control.asyncstream import AsyncArrays, AsyncStream
    from dorad.control.messages.method import P, R
    from dorad.dataflow.model import Dataflow


class AsyncMethods(ABC):
    """One Python method for each method of the API.

    They raise ControlError with the server's code, such as `not-found`, `conflict` or `refused`;
    with `deadline` if it does not answer, and with `unavailable` if the connection ends.

    `dataflow` is a UUID or a name, by default the only running dataflow. `grace` is the seconds
    until SIGTERM. `node` is the id of a node, a topic is `node/output`.
    """

    @abstractmethod
    async def call(self, method: m.CallMethod[P, R], params: P) -> R:
        """Call a method and return its result."""

    @abstractmethod
    def stream(self, method: m.StreamMethod[P, R], params: P) -> AsyncStream[R]:
        """Return a stream of the events of a method."""

    @abstractmethod
    def arrays(self, params: m.TopicSubscribe) -> AsyncArrays:
        """Return the messages of `topic.subscribe` as a stream."""

    async def status(self) -> m.DaemonStatus:
        """Return the state of the daemon."""
        return await self.call(m.DAEMON_STATUS, m.Nothing())

    async def leases(self) -> builtins.list[m.Lease]:
        """Return what must not be interrupted, the oldest first."""
        return (await self.call(m.LEASE_LIST, m.Nothing())).leases

    async def take_lease(self, reason: str, ttl: float) -> m.Lease:
        """Take a lease for `ttl` seconds, at most a day."""
        return await self.call(m.LEASE_TAKE, m.LeaseTake(reason=reason, ttl=ttl))

    def hold_lease(self, reason: str) -> AsyncStream[m.Lease]:
        """Hold a lease as long as the stream is open. Its one event says that it holds."""
        return self.stream(m.LEASE_HOLD, m.LeaseTake(reason=reason))

    async def end_lease(self, lease_id: str) -> None:
        """End a lease that was taken for some time."""
        await self.call(m.LEASE_END, m.LeaseRef(id=lease_id))

    async def shutdown(self, *, force: bool = False) -> None:
        """Stop the daemon. Without `force` it is refused while dataflows run."""
        await self.call(m.DAEMON_SHUTDOWN, m.Shutdown(force=force))

    async def start(
        self,
        dataflow: str | Path | Dataflow,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        uv: bool = False,
        allow_shell: bool = False,
        exit_when_nodes_finish: bool | None = None,
        hot_reload: bool = False,
    ) -> m.Started:
        """Start the dataflow in a file, or one that is loaded already; see `wait`.

        `env` holds variables for all nodes.

        Raises:
            DataflowError: the file is invalid; it has all problems.
        """
        params = await asyncio.to_thread(
            start_request,
            dataflow,
            name=name,
            env=env,
            uv=uv,
            allow_shell=allow_shell,
            exit_when_nodes_finish=exit_when_nodes_finish,
            hot_reload=hot_reload,
        )
        return await self.call(m.DATAFLOW_START, params)

    async def wait(
        self, dataflow: str, *, until: m.Until = "ended", timeout: float | None = None
    ) -> m.DataflowState:
        """Wait until all nodes are spawned or running, or until the dataflow has ended.

        Raises:
            ControlError: with code `deadline` after `timeout` seconds.
        """
        params = m.Wait(dataflow=dataflow, until=until, timeout=timeout)
        return await self.call(m.DATAFLOW_WAIT, params)

    async def open_barrier(self, dataflow: str) -> None:
        """Open the start barrier of a dataflow that was started with `hold`."""
        await self.call(m.DATAFLOW_OPEN, m.Ref(dataflow=dataflow))

    async def update(
        self,
        dataflow: str,
        descriptor: dict[str, Any],
        share: m.Share,
        params: dict[str, dict[str, Any]] | None = None,
    ) -> m.Changed:
        """Change this machine's share of a running dataflow to a new descriptor and placement."""
        update = m.Update(
            dataflow=dataflow, descriptor=descriptor, share=share, params=params or {}
        )
        return await self.call(m.DATAFLOW_UPDATE, update)

    async def stop(
        self, dataflow: str | None = None, *, grace: float | None = None, force: bool = False
    ) -> m.DataflowState:
        """Stop a dataflow and wait until it has ended; `force` kills its nodes at once."""
        params = m.Stop(dataflow=dataflow, grace=grace, force=force)
        return await self.call(m.DATAFLOW_STOP, params)

    async def enable(self, dataflow: str | None = None, *, enabled: bool = True) -> m.DataflowInfo:
        """Choose whether a dataflow, running or ended, is started at boot."""
        params = m.Enable(dataflow=dataflow, enabled=enabled)
        return await self.call(m.DATAFLOW_ENABLE, params)

    async def restart(
        self, dataflow: str | None = None, *, grace: float | None = None, force: bool = False
    ) -> m.Restarted:
        """Stop a dataflow and start it again, including its changes since the start."""
        params = m.Stop(dataflow=dataflow, grace=grace, force=force)
        return await self.call(m.DATAFLOW_RESTART, params)

    async def list(self) -> builtins.list[m.DataflowInfo]:
        """Return all running dataflows, and those that have ended and were not cleaned."""
        return (await self.call(m.DATAFLOW_LIST, m.Nothing())).dataflows

    async def info(self, dataflow: str | None = None) -> m.DataflowDetail:
        """Return one dataflow with its descriptor and paths."""
        return await self.call(m.DATAFLOW_INFO, m.Ref(dataflow=dataflow))

    async def clean(self) -> builtins.list[m.DataflowInfo]:
        """Remove dataflows that have ended from the list, and return them."""
        return (await self.call(m.DATAFLOW_CLEAN, m.Nothing())).dataflows

    async def nodes(self, dataflow: str | None = None) -> builtins.list[m.NodeInfo]:
        """Return the nodes of one dataflow, or of all running dataflows."""
        return (await self.call(m.NODE_LIST, m.Ref(dataflow=dataflow))).nodes

    async def node_info(self, node: str, *, dataflow: str | None = None) -> m.NodeDetail:
        """Return one node with its inputs, its outputs and its policies."""
        params = m.NodeRef(node=node, dataflow=dataflow)
        return await self.call(m.NODE_INFO, params)

    async def add_node(
        self, definition: Mapping[str, Any], *, dataflow: str | None = None
    ) -> m.Changed:
        """Add a node to a running dataflow; `definition` is an entry of `nodes`."""
        params = m.NodeAdd(definition=dict(definition), dataflow=dataflow)
        return await self.call(m.NODE_ADD, params)

    async def remove_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> m.Changed:
        """Stop a node and remove it and its edges from its dataflow."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        return await self.call(m.NODE_REMOVE, params)

    async def replace_node(
        self,
        node: str,
        definition: Mapping[str, Any],
        *,
        dataflow: str | None = None,
        grace: float | None = None,
    ) -> m.Changed:
        """Replace a node by another one without losing messages to it."""
        params = m.NodeReplace(
            node=node, definition=dict(definition), dataflow=dataflow, grace=grace
        )
        return await self.call(m.NODE_REPLACE, params)

    async def connect(
        self,
        source: str,
        target: str,
        *,
        options: Mapping[str, Any] | None = None,
        dataflow: str | None = None,
    ) -> m.Changed:
        """Add an edge from `node/output` to `node/input`.

        `options` are those of an input in a dataflow file, such as `queue_size`.
        """
        params = m.EdgeNew(
            source=source, target=target, options=dict(options or {}), dataflow=dataflow
        )
        return await self.call(m.NODE_CONNECT, params)

    async def disconnect(
        self, source: str, target: str, *, dataflow: str | None = None
    ) -> m.Changed:
        """Remove the edge from `node/output` to `node/input`."""
        params = m.EdgeRef(source=source, target=target, dataflow=dataflow)
        return await self.call(m.NODE_DISCONNECT, params)

    async def restart_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> None:
        """Restart a node, regardless of its restart policy."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        await self.call(m.NODE_RESTART, params)

    async def stop_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> None:
        """Stop a node without restarting it."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        await self.call(m.NODE_STOP, params)

    async def top(self) -> m.Top:
        """Return the resource use of all nodes and the counters of all edges."""
        return await self.call(m.TOP, m.Nothing())

    def watch_top(
        self,
        *,
        order: m.TopOrder = "name",
        limit: int = 0,
        filter: str = "",
        interval: float = 1.0,
        dataflow: str | None = None,
        machine: str | None = None,
    ) -> AsyncStream[m.TopPart]:
        """Measure nodes and edges every `interval` seconds, reduced on the server."""
        params = m.TopWatch(
            order=order,
            limit=limit,
            filter=filter,
            interval=interval,
            dataflow=dataflow,
            machine=machine,
        )
        return self.stream(m.TOP_WATCH, params)

    def watch_fleet(self, *, interval: float = 1.0) -> AsyncStream[m.FleetRows]:
        """Follow the robots in brief: first all rows, then every `interval` seconds the changed."""
        return self.stream(m.FLEET_WATCH, m.FleetWatch(interval=interval))

    def watch_alerts(self, *, interval: float = 1.0) -> AsyncStream[m.Alerts]:
        """Follow the alerts, checked every `interval` seconds."""
        return self.stream(m.ALERTS_WATCH, m.AlertWatch(interval=interval))

    async def past_alerts(self, *, limit: int = 100) -> m.PastAlerts:
        """Return the last alerts that are over, at most `limit`."""
        return await self.call(m.ALERTS_PAST, m.PastAlertsRead(limit=limit))

    async def ack_alert(self, id_: str, *, undo: bool = False) -> m.Alert:
        """Acknowledge an alert, or withdraw the acknowledgement."""
        return await self.call(m.ALERTS_ACK, m.AlertAck(id=id_, undo=undo))

    async def incidents(self, dataflow: str | None = None) -> m.IncidentList:
        """Return the incidents that the black boxes of one dataflow, or of all, have kept.

        The dataflow may have ended.
        """
        return await self.call(m.INCIDENT_LIST, m.Ref(dataflow=dataflow))

    async def topics(self, dataflow: str | None = None) -> m.TopicList:
        """Return the outputs of a dataflow and their subscribers."""
        return await self.call(m.TOPIC_LIST, m.Ref(dataflow=dataflow))

    def watch_topics(
        self, topics: Sequence[str] = (), *, dataflow: str | None = None, window: int = 10
    ) -> AsyncStream[m.TopicRates]:
        """Measure outputs once a second, over `window` seconds. No topics means all of them."""
        params = m.TopicWatch(dataflow=dataflow, topics=[*topics], window=window)
        return self.stream(m.TOPIC_WATCH, params)

    def echo(
        self,
        topics: Sequence[str] = (),
        *,
        dataflow: str | None = None,
        queue_size: int = 64,
        max_rate_hz: float | None = None,
        preview: m.Preview | None = None,
    ) -> AsyncArrays:
        """Receive the messages of outputs as header and Arrow array. No topics means all of them.

        The array is None for a message without data. `max_rate_hz` limits the messages of each
        topic, `preview` makes them smaller where they come from.
        """
        return self.arrays(
            m.TopicSubscribe(
                dataflow=dataflow,
                topics=[*topics],
                queue_size=queue_size,
                max_rate_hz=max_rate_hz,
                preview=preview,
            )
        )

    async def publish(
        self,
        topic: str,
        data: Sequence[Any],
        *,
        dataflow: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> m.Published:
        """Send messages on an output as if its node did. Each entry of `data` is one message."""
        params = m.TopicPublish(
            topic=topic, data=[*data], dataflow=dataflow, metadata=dict(metadata or {})
        )
        return await self.call(m.TOPIC_PUBLISH, params)

    async def params(self, node: str, *, dataflow: str | None = None) -> builtins.list[m.Param]:
        """Return the parameters of a node."""
        params = m.NodeRef(node=node, dataflow=dataflow)
        return (await self.call(m.PARAM_LIST, params)).params

    async def get_param(self, node: str, key: str, *, dataflow: str | None = None) -> m.Param:
        """Return one parameter of a node."""
        params = m.ParamRef(node=node, key=key, dataflow=dataflow)
        return await self.call(m.PARAM_GET, params)

    async def set_param(
        self, node: str, key: str, value: Any, *, dataflow: str | None = None
    ) -> m.Param:
        """Set a parameter to a JSON value and notify the node."""
        params = m.ParamSet(node=node, key=key, value=value, dataflow=dataflow)
        return await self.call(m.PARAM_SET, params)

    async def delete_param(self, node: str, key: str, *, dataflow: str | None = None) -> None:
        """Delete a parameter and notify the node."""
        params = m.ParamRef(node=node, key=key, dataflow=dataflow)
        await self.call(m.PARAM_DELETE, params)

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
    ) -> AsyncStream[m.LogLines]:
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
        return self.stream(m.LOGS_READ, params)

    def watch(self, dataflow: str | None = None) -> AsyncStream[m.Event]:
        """Follow the events of one dataflow, or of all of them."""
        return self.stream(m.WATCH, m.Watch(dataflow=dataflow))
