"""What nodes are told: events, the opening of the barrier, parameters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dorad.node.protocol import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dorad.daemon.broker.sessions import Sessions
    from dorad.daemon.broker.state import BrokerState


class Notifications:
    """The part of the broker that tells. What holds, later processes of a node are told, too."""

    _state: BrokerState
    _sessions: Sessions
    on_change: Callable[[], None]

    def open_barrier(self) -> None:
        """Let `Node()` return in every node that waits, and at once in later ones."""
        state = self._state
        if state.epoch_ns is not None or state.abort_start is not None:
            return
        state.epoch_ns = time.monotonic_ns()
        for node_id in list(state.connections):
            state.send(node_id, "start", {"epoch_ns": state.epoch_ns})
        self.on_change()

    def abort_start(self, reason: str) -> None:
        """Make `Node()` raise in every node that waits, and in later ones."""
        self._state.abort_start = reason
        for node_id in list(self._state.connections):
            self._state.send(node_id, "refused", {"error": reason})
        self.on_change()

    def stop(self, node_id: str, reason: str) -> None:
        """Send STOP with `reason`, MANUAL or ALL_INPUTS_CLOSED."""
        if not self._sessions.handovers.has_swapped(node_id):
            self._tell(node_id, "stop", {"reason": reason})

    def stop_operator(self, node_id: str, operator: str, reason: str) -> None:
        """Send STOP with `reason` to one operator of a node."""
        self._tell(node_id, "stop", {"reason": reason, "operator": operator})

    def reload(self, node_id: str, operator: str) -> None:
        """Let an operator load its file anew; its next process does anyway."""
        self._state.send(node_id, "reload", {"operator": operator})

    def close_input(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED, which the node sees after what is queued."""
        self._tell(node_id, "closed", {"input": input_id})

    def node_failed(self, node_id: str, source_node: str, error: str, input_ids: list[str]) -> None:
        """Send NODE_FAILED."""
        fields = {"source_node_id": source_node, "error": error, "affected_input_ids": input_ids}
        self._tell(node_id, "failed", fields)

    def input_broken(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED because nothing came in time."""
        self._tell(node_id, "broken", {"input": input_id})

    def input_recovered(self, node_id: str, input_id: str) -> None:
        """Send INPUT_RECOVERED: something comes over a broken or closed input again."""
        node_facts = self._state.facts_of(node_id)
        node_facts.drop("broken", input_id)
        node_facts.drop("closed", input_id)
        self._state.send(node_id, "recovered", {"input": input_id})
        self.on_change()

    def node_restarted(self, node_id: str, source_node: str) -> None:
        """Send NODE_RESTARTED: a node that feeds this one has a new process."""
        node_facts = self._state.facts_of(node_id)
        node_facts.drop("failed", source_node)
        for edge in self._state.edges.received_by(node_id):
            if edge.source == source_node:
                node_facts.drop("closed", edge.input)
        self._state.send(node_id, "restarted", {"node": source_node})
        self.on_change()

    def _tell(self, node_id: str, kind: str, fields: dict[str, Any]) -> None:
        """Let something hold for a node, also for processes of it that attach only later."""
        if self._state.facts_of(node_id).add(kind, fields):
            self._state.send(node_id, kind, fields)
            self.on_change()

    def ping(self, node_id: str) -> None:
        """Send something that a node at work reads, and nothing comes of."""
        self._state.send_ping(node_id)

    # -- params ------------------------------------------------------------------------------

    def set_params(self, node_id: str, params: Mapping[str, Any]) -> None:
        """Give the node's next processes these parameters from the start."""
        self._state.params[node_id] = dict(params)
        self.on_change()

    def param_update(self, node_id: str, key: str, value: Any) -> bool:
        """Set a parameter and send PARAM_UPDATE; False if no process is there to hear of it.

        Raises:
            ProtocolError: the value is too large, some 64 KB.
        """
        fields = {"key": key, "value": value}
        encode("param", fields)
        self._state.params.setdefault(node_id, {})[key] = value
        self.on_change()
        self._state.send(node_id, "param", fields)
        return node_id in self._state.connections

    def param_deleted(self, node_id: str, key: str, **default: Any) -> bool:
        """Delete a parameter and send PARAM_DELETED; False if no process is there to hear of it.

        With `value`, its declared default, it has that from now on.
        """
        params = self._state.params.setdefault(node_id, {})
        params.pop(key, None)
        if "value" in default:
            params[key] = default["value"]
        self.on_change()
        self._state.send(node_id, "param_gone", {"key": key, **default})
        return node_id in self._state.connections
