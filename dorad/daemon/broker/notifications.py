"""Notifications to nodes: events, the opening of the start barrier, parameters."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from dorad.daemon.broker.state import BrokerState
from dorad.dataflow.model import LINK
from dorad.dataflow.params import as_json
from dorad.dataflow.recording import is_recorder
from dorad.node.protocol import ProtocolError, encode

_log = logging.getLogger(__name__)


class Notifications:
    """Sends events to nodes. Events that still hold also reach later processes of a node."""

    def __init__(self, state: BrokerState, has_swapped: Callable[[str], bool]) -> None:
        """`has_swapped` returns True while a node's replaced process has not exited yet."""
        self._state = state
        self._has_swapped = has_swapped

    def open_barrier(self) -> None:
        """Let `Node()` return in every waiting node, and at once in later ones."""
        state = self._state
        if state.epoch_ns is not None or state.abort_reason is not None:
            return
        _log.debug("the start barrier opens for %d connected nodes", len(state.connections))
        state.epoch_ns = time.monotonic_ns()
        for node_id in list(state.connections):
            state.send(node_id, "start", {"epoch_ns": state.epoch_ns})
        state.changed()

    def abort_start(self, reason: str) -> None:
        """Make `Node()` raise in every waiting node, and in later ones."""
        _log.debug("the start is aborted: %s", reason)
        self._state.abort_reason = reason
        for node_id in list(self._state.connections):
            self._state.refused.add(node_id)
            self._state.send(node_id, "refused", {"error": reason})
        self._state.changed()

    def stop(self, node_id: str, reason: str) -> None:
        """Send STOP with `reason`, MANUAL or ALL_INPUTS_CLOSED."""
        if not self._has_swapped(node_id):
            self._notify(node_id, "stop", {"reason": reason})

    def stop_operator(self, node_id: str, operator: str, reason: str) -> None:
        """Send STOP with `reason` to one operator of a node."""
        self._notify(node_id, "stop", {"reason": reason, "operator": operator})

    def reload(self, node_id: str, operator: str) -> None:
        """Ask the present process to reload an operator's file; later ones load it anyway."""
        self._state.send(node_id, "reload", {"operator": operator})

    def close_input(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED, which the node gets after the queued messages."""
        for edge in self._state.edges.into(node_id, input_id):
            self._state.conditions_of(node_id).drop("restarted", edge.source)
        self._notify(node_id, "closed", {"input": input_id})

    def node_failed(self, node_id: str, source_node: str, error: str, input_ids: list[str]) -> None:
        """Send NODE_FAILED."""
        fields = {"source_node_id": source_node, "error": error, "affected_input_ids": input_ids}
        self._notify(node_id, "failed", fields)

    def input_broken(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED because no message came within the input's timeout."""
        self._notify(node_id, "broken", {"input": input_id})

    def input_recovered(self, node_id: str, input_id: str) -> None:
        """Send INPUT_RECOVERED: messages arrive again on a broken or closed input."""
        conditions = self._state.conditions_of(node_id)
        conditions.drop("broken", input_id)
        conditions.drop("closed", input_id)
        self._state.send(node_id, "recovered", {"input": input_id})
        self._state.changed()

    def send_event(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        """Send an event of the dataflow to its recorders, if it fits into a packet."""
        fields = {"what": what, "node": node, "text": text, "data": data}
        for each in self._state.dataflow.nodes:
            if not is_recorder(each):
                continue
            try:
                encode("happened", fields)
            except ProtocolError as error:
                _log.debug("recorder %s does not get %s: %s", each.id, what, error)
                return
            self._state.send(each.id, "happened", fields)

    def node_restarted(self, node_id: str, source_node: str, *, had_ended: bool = False) -> None:
        """Send NODE_RESTARTED: a node that feeds this one has a new process.

        If that node `had_ended`, later processes of the link get it, too: one that is killed now
        may not have told the other machines, for which the node has ended.
        """
        conditions = self._state.conditions_of(node_id)
        conditions.drop("failed", source_node)
        for edge in self._state.edges.received_by(node_id):
            if edge.origin == source_node:
                conditions.drop("closed", edge.input)
        fields: dict[str, Any] = {"node": source_node}
        if had_ended and node_id == LINK:
            fields["count"] = self._state.restarts.get(source_node, 0)
            conditions.add("restarted", fields)
        self._state.send(node_id, "restarted", fields)
        self._state.changed()

    def _notify(self, node_id: str, kind: str, fields: dict[str, Any]) -> None:
        """Send a packet and keep it for later processes of the node, unless it holds already."""
        if self._state.conditions_of(node_id).add(kind, fields):
            _log.debug("node %s: %s holds from now on: %s", node_id, kind, fields)
            self._state.send(node_id, kind, fields)
            self._state.changed()

    def ping(self, node_id: str) -> None:
        """Send a packet without content: a healthy node reads it."""
        self._state.send_ping(node_id)


class Params:
    """The parameters of all nodes, for present and later processes."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def replace(self, node_id: str, params: Mapping[str, Any]) -> None:
        """Set all parameters that the node's next processes start with."""
        _log.debug("node %s starts with %d parameters", node_id, len(params))
        self._state.params[node_id] = dict(params)
        self._state.changed()

    def align(self, node_id: str, params: Mapping[str, Any]) -> None:
        """Make the parameters of a node these, and send it what differs.

        Raises:
            ProtocolError: a value does not fit into a packet of 64 KB.
        """
        known = dict(self._state.params.get(node_id, {}))
        for key in known.keys() - params.keys():
            self.delete(node_id, key)
        for key, value in params.items():
            if key not in known or as_json(known[key]) != as_json(value):
                self.update(node_id, key, value)

    def update(self, node_id: str, key: str, value: Any) -> bool:
        """Set a parameter and send PARAM_UPDATE; return False if the node has no process.

        Raises:
            ProtocolError: the value does not fit into a packet of 64 KB.
        """
        fields = {"key": key, "value": value}
        encode("param", fields)
        _log.debug("parameter %s of node %s is set", key, node_id)
        self._state.params.setdefault(node_id, {})[key] = value
        self._state.changed()
        self._state.send(node_id, "param", fields)
        return node_id in self._state.connections

    def delete(self, node_id: str, key: str, **default: Any) -> bool:
        """Delete a parameter and send PARAM_DELETED; return False if the node has no process.

        With `value`, its declared default, the parameter falls back to that.
        """
        _log.debug("parameter %s of node %s is deleted", key, node_id)
        params = self._state.params.setdefault(node_id, {})
        params.pop(key, None)
        if "value" in default:
            params[key] = default["value"]
        self._state.changed()
        self._state.send(node_id, "param_gone", {"key": key, **default})
        return node_id in self._state.connections
