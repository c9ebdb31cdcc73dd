"""The methods of the control API as typed methods of a client.

`asyncmethods.py` is generated from this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from dorad.control import messages as m
from dorad.control.loading import start_request

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dorad.control.client import Arrays, Stream
    from dorad.dataflow.model import Dataflow

R = TypeVar("R", bound=m.Struct)


class Methods(ABC):
    """One method for each of the API; they raise ControlError.

    `dataflow` is a UUID or a name; without it the only dataflow that runs is meant. `grace` is
    the seconds until SIGTERM. `node` is the id of a node, a topic is `node/output`.
    """

    @abstractmethod
    def call(self, method: str, params: m.Struct, kind: type[R]) -> R:
        """Return the result of a method, which is of this type."""

    @abstractmethod
    def stream(self, method: str, params: m.Struct, kind: type[R]) -> Stream[R]:
        """Return the events of a method, which are of this type."""

    @abstractmethod
    def arrays(self, params: m.TopicSubscribe) -> Arrays:
        """Return the messages of `topic.subscribe`."""

    def status(self) -> m.DaemonStatus:
        """Return what is known of the daemon itself."""
        return self.call("daemon.status", m.Nothing(), m.DaemonStatus)

    def shutdown(self, *, force: bool = False) -> None:
        """End the daemon; without `force` only if no dataflow runs."""
        self.call("daemon.shutdown", m.Shutdown(force=force), m.Nothing)

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
    ) -> m.Started:
        """Start the dataflow in a file, or one that was loaded already; see `wait`.

        Raises DataflowError for a file that is not in order.
        """
        params = start_request(
            dataflow,
            name=name,
            env=env,
            uv=uv,
            allow_shell=allow_shell,
            exit_when_nodes_finish=exit_when_nodes_finish,
            hot_reload=hot_reload,
        )
        return self.call("dataflow.start", params, m.Started)

    def wait(
        self, dataflow: str, *, until: m.Until = "ended", timeout: float | None = None
    ) -> m.DataflowState:
        """Wait until the nodes are spawned, or run, or the dataflow has ended.

        Raises ControlError with code `deadline` after `timeout` seconds.
        """
        params = m.Wait(dataflow=dataflow, until=until, timeout=timeout)
        return self.call("dataflow.wait", params, m.DataflowState)

    def stop(
        self, dataflow: str | None = None, *, grace: float | None = None, force: bool = False
    ) -> m.DataflowState:
        """Stop a dataflow and wait for its end; `force` kills its nodes at once."""
        params = m.Stop(dataflow=dataflow, grace=grace, force=force)
        return self.call("dataflow.stop", params, m.DataflowState)

    def enable(self, dataflow: str | None = None, *, enabled: bool = True) -> m.DataflowInfo:
        """Have a dataflow, running or ended, started when the machine is, or no longer."""
        params = m.Enable(dataflow=dataflow, enabled=enabled)
        return self.call("dataflow.enable", params, m.DataflowInfo)

    def restart(
        self, dataflow: str | None = None, *, grace: float | None = None, force: bool = False
    ) -> m.Restarted:
        """Stop a dataflow and start it again, as it was changed meanwhile."""
        params = m.Stop(dataflow=dataflow, grace=grace, force=force)
        return self.call("dataflow.restart", params, m.Restarted)

    def list(self) -> builtins.list[m.DataflowInfo]:
        """Return all dataflows that run, or have ended and were not cleaned."""
        return self.call("dataflow.list", m.Nothing(), m.DataflowList).dataflows

    def info(self, dataflow: str | None = None) -> m.DataflowDetail:
        """Return one dataflow with what it was started from."""
        return self.call("dataflow.info", m.Ref(dataflow=dataflow), m.DataflowDetail)

    def clean(self) -> builtins.list[m.DataflowInfo]:
        """Forget dataflows that have ended; return them."""
        return self.call("dataflow.clean", m.Nothing(), m.DataflowList).dataflows

    def nodes(self, dataflow: str | None = None) -> builtins.list[m.NodeInfo]:
        """Return the nodes of one dataflow, or of all that run."""
        return self.call("node.list", m.Ref(dataflow=dataflow), m.NodeList).nodes

    def node_info(self, node: str, *, dataflow: str | None = None) -> m.NodeDetail:
        """Return one node with its wiring and policies."""
        params = m.NodeRef(node=node, dataflow=dataflow)
        return self.call("node.info", params, m.NodeDetail)

    def add_node(self, definition: Mapping[str, Any], *, dataflow: str | None = None) -> m.Changed:
        """Add a node to a running dataflow; `definition` is an entry of `nodes`."""
        params = m.NodeAdd(definition=dict(definition), dataflow=dataflow)
        return self.call("node.add", params, m.Changed)

    def remove_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> m.Changed:
        """Stop a node and take it and its edges out of its dataflow."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        return self.call("node.remove", params, m.Changed)

    def replace_node(
        self,
        node: str,
        definition: Mapping[str, Any],
        *,
        dataflow: str | None = None,
        grace: float | None = None,
    ) -> m.Changed:
        """Put another node in the place of one, without losing a message to it."""
        params = m.NodeReplace(
            node=node, definition=dict(definition), dataflow=dataflow, grace=grace
        )
        return self.call("node.replace", params, m.Changed)

    def connect(
        self,
        source: str,
        target: str,
        *,
        options: Mapping[str, Any] | None = None,
        dataflow: str | None = None,
    ) -> m.Changed:
        """Add an edge from `node/output` to `node/input`; `options` are those of the input."""
        params = m.EdgeNew(
            source=source, target=target, options=dict(options or {}), dataflow=dataflow
        )
        return self.call("node.connect", params, m.Changed)

    def disconnect(self, source: str, target: str, *, dataflow: str | None = None) -> m.Changed:
        """Take away the edge from `node/output` to `node/input`."""
        params = m.EdgeRef(source=source, target=target, dataflow=dataflow)
        return self.call("node.disconnect", params, m.Changed)

    def restart_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> None:
        """Restart a node, whatever its policy."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        self.call("node.restart", params, m.Nothing)

    def stop_node(
        self, node: str, *, dataflow: str | None = None, grace: float | None = None
    ) -> None:
        """Stop a node; it is not restarted."""
        params = m.NodeStop(node=node, dataflow=dataflow, grace=grace)
        self.call("node.stop", params, m.Nothing)

    def top(self) -> m.Top:
        """Return what all nodes use and what passes over all edges."""
        return self.call("top", m.Nothing(), m.Top)

    def topics(self, dataflow: str | None = None) -> m.TopicList:
        """Return the outputs of a dataflow and who receives them."""
        return self.call("topic.list", m.Ref(dataflow=dataflow), m.TopicList)

    def watch_topics(
        self, topics: Sequence[str] = (), *, dataflow: str | None = None, window: int = 10
    ) -> Stream[m.TopicRates]:
        """Measure outputs once a second, over `window` seconds; none given: all of them."""
        params = m.TopicWatch(dataflow=dataflow, topics=[*topics], window=window)
        return self.stream("topic.watch", params, m.TopicRates)

    def echo(
        self, topics: Sequence[str] = (), *, dataflow: str | None = None, queue_size: int = 64
    ) -> Arrays:
        """Receive what outputs send, as header and Arrow array; none given: all of them.

        The array is None for a message without data.
        """
        return self.arrays(
            m.TopicSubscribe(dataflow=dataflow, topics=[*topics], queue_size=queue_size)
        )

    def publish(
        self,
        topic: str,
        data: Sequence[Any],
        *,
        dataflow: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> m.Published:
        """Send on an output as its node would; each entry of `data` is one message."""
        params = m.TopicPublish(
            topic=topic, data=[*data], dataflow=dataflow, metadata=dict(metadata or {})
        )
        return self.call("topic.publish", params, m.Published)

    def params(self, node: str, *, dataflow: str | None = None) -> builtins.list[m.Param]:
        """Return the parameters of a node."""
        params = m.NodeRef(node=node, dataflow=dataflow)
        return self.call("param.list", params, m.ParamList).params

    def get_param(self, node: str, key: str, *, dataflow: str | None = None) -> m.Param:
        """Return one parameter of a node."""
        params = m.ParamRef(node=node, key=key, dataflow=dataflow)
        return self.call("param.get", params, m.Param)

    def set_param(self, node: str, key: str, value: Any, *, dataflow: str | None = None) -> m.Param:
        """Set a parameter and tell the node."""
        params = m.ParamSet(node=node, key=key, value=value, dataflow=dataflow)
        return self.call("param.set", params, m.Param)

    def delete_param(self, node: str, key: str, *, dataflow: str | None = None) -> None:
        """Delete a parameter and tell the node."""
        params = m.ParamRef(node=node, key=key, dataflow=dataflow)
        self.call("param.delete", params, m.Nothing)

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
    ) -> Stream[m.LogLines]:
        """Read log lines, and follow them; times are seconds since 1970."""
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
        )
        return self.stream("logs.read", params, m.LogLines)

    def watch(self, dataflow: str | None = None) -> Stream[m.Event]:
        """Follow what happens to one dataflow, or to all of them."""
        return self.stream("watch", m.Watch(dataflow=dataflow), m.Event)
