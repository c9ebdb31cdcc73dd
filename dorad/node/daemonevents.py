"""Turn the daemon's packets about inputs, parameters and the end into events for the node."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.node.params import Params
    from dorad.node.protocol import Packet

_log = logging.getLogger(__name__)

KINDS = frozenset(
    {
        "input",
        "input_gone",
        "closed",
        "broken",
        "recovered",
        "restarted",
        "failed",
        "stop",
        "reload",
        "param",
        "param_gone",
        "happened",
    }
)


def origin_of(item: Mapping[str, Any]) -> str | None:
    """Return the node whose messages an input gets, even from another machine."""
    origin: str | None = item.get("origin", item.get("source"))
    return origin


class DaemonEvents:
    """The events from the daemon that the node has not received yet.

    `urgent` events come before all messages. `endings` come after the messages queued on their
    input. `changes` are the packets `input` and `input_gone`, for `NodeInputs`. A daemon that takes
    over repeats the present state; a repeated packet makes no second event.
    """

    def __init__(self, inputs: Sequence[dict[str, Any]], params: Params) -> None:
        """`inputs` are the inputs that the node starts with."""
        self.urgent: deque[events.Event] = deque()
        self.endings: deque[events.Event] = deque()
        self.changes: deque[Packet] = deque()
        self.stopping = False
        self._params = params
        self._sources = {item["ring"]: (item["id"], origin_of(item)) for item in inputs}
        self._closed: set[str] = set()
        self._broken: set[str] = set()
        self.failed: dict[str, str] = {}
        self.restarts: dict[str, int] = {}
        self._counts: dict[str, object] = {}
        """How often nodes had restarted, as far as the daemon has said."""
        self.breaks: dict[str, int] = {}
        self._ending = False

    @property
    def ending(self) -> bool:
        """True once all inputs are closed."""
        return self._ending

    def closed(self, input_id: str) -> bool:
        """Return True if an input is closed."""
        return input_id in self._closed

    def sources(self) -> list[tuple[str, str | None]]:
        """Return each input with its source node; None for a timer or other built-in source."""
        return list(self._sources.values())

    def handle(self, packet: Packet) -> None:
        """Apply a packet of one of `KINDS`.

        Raises:
            ProtocolError: a field is missing.
        """
        _log.debug("daemon packet %s: %s", packet.kind, packet.fields)
        match packet.kind:
            case "input":
                input_id = packet.text("id")
                self._sources[packet.number("ring")] = (input_id, origin_of(packet.fields))
                self._closed.discard(input_id)
                self.changes.append(packet)
            case "input_gone":
                self._sources.pop(packet.number("ring"), None)
                self.changes.append(packet)
            case "closed":
                self._close(packet.text("input"))
            case "broken":
                self._break(packet.text("input"))
            case "recovered":
                self._recover(packet.text("input"))
            case "restarted":
                self._restart(packet.text("node"), packet.fields.get("count"))
            case "failed":
                self._fail(packet.text("source_node_id"), packet)
            case "stop":
                self._stop(packet.text("reason"))
            case "reload":
                self.urgent.append(events.reload(packet.text("operator")))
            case "param":
                self._set_param(packet.text("key"), packet.fields.get("value"))
            case "happened":
                self._report(packet)
            case "param_gone":
                self._delete_param(packet.text("key"), packet)

    def listens_to(self, node: str) -> bool:
        """Return True if `node` feeds an input."""
        return any(source == node for _, source in self._sources.values())

    def lose_daemon(self) -> None:
        """Queue an ERROR event: the connection to the daemon was closed."""
        text = "the daemon has closed the connection; no more events will come"
        self.urgent.append(events.error(text))

    def _close(self, input_id: str) -> None:
        self._broken.discard(input_id)
        if input_id not in self._closed:
            self._closed.add(input_id)
            self.endings.append(events.input_closed(input_id, events.FINISHED))

    def _break(self, input_id: str) -> None:
        if input_id not in self._broken and input_id not in self._closed:
            self._broken.add(input_id)
            self.breaks[input_id] = self.breaks.get(input_id, 0) + 1
            self.urgent.append(events.input_closed(input_id, events.TIMEOUT))

    def _recover(self, input_id: str) -> None:
        if input_id in self._broken or input_id in self._closed:
            self._broken.discard(input_id)
            self._closed.discard(input_id)
            self.urgent.append(events.input_recovered(input_id))

    def _restart(self, node: str, count: object) -> None:
        if count is not None:
            if self._counts.get(node) == count:
                return  # a daemon that has taken over repeats it
            self._counts[node] = count
        self.failed.pop(node, None)
        self.restarts[node] = self.restarts.get(node, 0) + 1
        self._closed -= {item for item, source in self._sources.values() if source == node}
        self.urgent.append(events.node_restarted(node))

    def _fail(self, node: str, packet: Packet) -> None:
        if node not in self.failed:
            self.failed[node] = packet.text("error").partition(" with stderr output:\n")[0]
            inputs = packet.fields["affected_input_ids"]
            self.endings.append(events.node_failed(node, packet.text("error"), inputs))

    def _stop(self, reason: str) -> None:
        if reason == events.MANUAL:
            if not self.stopping:
                self.stopping = True
                self.urgent.append(events.stop(reason))
        elif not self._ending:
            self._ending = True
            self.endings.append(events.stop(reason))

    def _report(self, packet: Packet) -> None:
        node, data = packet.fields.get("node"), packet.fields.get("data")
        self.urgent.append(
            events.dataflow_event(
                packet.text("what"),
                node if isinstance(node, str) else None,
                packet.text("text"),
                data if isinstance(data, dict) else {},
            )
        )

    def _set_param(self, key: str, value: Any) -> None:
        self._params.set(key, value)
        self.urgent.append(events.param_update(key, value))

    def _delete_param(self, key: str, packet: Packet) -> None:
        if "value" in packet.fields:
            self._params.set(key, packet.fields["value"])
        else:
            self._params.drop(key)
        self.urgent.append(events.param_deleted(key))
