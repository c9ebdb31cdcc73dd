"""The daemon's events for a node of operators, passed to each operator that they concern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.node import events
from dorad.node.daemonevents import DaemonEvents
from dorad.node.protocol import Packet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.node.params import Params


def split(name: str) -> tuple[str, str]:
    """Split the id of a node's input or output into the operator and the operator's own id."""
    operator, _, own = name.partition("/")
    return operator, own


class OperatorEvents(DaemonEvents):
    """The events of all operators. `of` has the events of each, with the operator's own ids."""

    def __init__(
        self, inputs: Sequence[dict[str, Any]], params: Params, operators: Sequence[str]
    ) -> None:
        super().__init__(inputs, params)
        self.of = {
            each: DaemonEvents(
                [own_item(item) for item in inputs if split(item["id"])[0] == each], params
            )
            for each in operators
        }

    def handle(self, packet: Packet) -> None:
        """See `DaemonEvents`."""
        match packet.kind:
            case "input" | "input_gone":
                self._pass_on("id", packet)
            case "closed" | "broken" | "recovered":
                self._pass_on("input", packet)
            case "failed":
                self._fail_of_each(packet)
            case "restarted":
                for daemon_events in self.of.values():
                    if daemon_events.listens_to(packet.text("node")):
                        daemon_events.handle(packet)
            case "reload":
                self._of(packet.text("operator")).handle(packet)
            case "stop" if "operator" in packet.fields:
                self._of(packet.text("operator")).handle(packet)
            case _:
                for daemon_events in self.of.values():
                    daemon_events.handle(packet)
        self.stopping = self.stopping or (
            packet.kind == "stop" and packet.fields["reason"] == events.MANUAL
        )

    def stop_all(self) -> None:
        """Stop every operator, as if the daemon had sent `stop`."""
        self.handle(Packet("stop", {"reason": events.MANUAL}))

    def lose_daemon(self) -> None:
        """See `DaemonEvents`."""
        for daemon_events in self.of.values():
            daemon_events.lose_daemon()

    def _of(self, operator: str) -> DaemonEvents:
        return self.of[operator]

    def _pass_on(self, key: str, packet: Packet) -> None:
        operator, own = split(packet.text(key))
        self._of(operator).handle(Packet(packet.kind, {**packet.fields, key: own}))

    def _fail_of_each(self, packet: Packet) -> None:
        inputs: dict[str, list[str]] = {}
        for name in packet.fields["affected_input_ids"]:
            operator, own = split(name)
            inputs.setdefault(operator, []).append(own)
        for operator, names in inputs.items():
            fields = {**packet.fields, "affected_input_ids": names}
            self._of(operator).handle(Packet(packet.kind, fields))


def own_item(item: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a node's input with the operator's own id."""
    return {**item, "id": split(item["id"])[1]}
