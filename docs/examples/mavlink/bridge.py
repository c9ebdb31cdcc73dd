"""Carries messages between a dataflow and a vehicle that speaks MAVLink 2."""

import os
import sys

os.environ["MAVLINK20"] = "1"
import pyarrow as pa
from dora import Node
from pymavlink import mavutil

OUTPUTS = {"HEARTBEAT": "heartbeat", "LOCAL_POSITION_NED": "position"}


class Bridge:
    """The connection, and the requests whose acknowledgement is still missing."""

    def __init__(self, node: Node, connection) -> None:
        self._node = node
        self._connection = connection
        self._requests: dict[int, dict] = {}

    def send(self, event: dict) -> None:
        """Send a command to the vehicle."""
        command = event["value"][0].as_py()
        self._requests[command["command"]] = event["metadata"]
        params = [command.get(f"param{number}") or 0.0 for number in range(1, 8)]
        self._connection.mav.command_long_send(1, 1, command["command"], 0, *params)

    def receive(self) -> None:
        """Pass on everything that the vehicle has sent."""
        while message := self._connection.recv_match(blocking=False):
            kind = message.get_type()
            fields = pa.array([message.to_dict()])
            if kind in OUTPUTS:
                self._node.send_output(OUTPUTS[kind], fields)
            elif kind == "COMMAND_ACK" and message.command in self._requests:
                metadata = self._requests.pop(message.command)
                self._node.send_service_response("ack", fields, metadata)


def main() -> None:
    """Carry messages until the pilot has ended."""
    connection = mavutil.mavlink_connection(sys.argv[1], source_system=255, dialect="common")
    node = Node()
    bridge = Bridge(node, connection)
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "command":
            bridge.send(event)
        elif event["type"] == "INPUT":
            bridge.receive()
        elif event["type"] == "INPUT_CLOSED":
            break


if __name__ == "__main__":
    main()
