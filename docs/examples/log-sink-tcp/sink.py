"""Sends log lines to a TCP port of this machine; keeps them while no collector listens."""

import json
import socket
import sys
from collections import deque

from dora import Node

MAX_LINES = 10_000
LAST = "step 29"


class Sink:
    """Lines on their way to the collector."""

    def __init__(self, node: Node, port: int) -> None:
        self.waiting: deque[str] = deque(maxlen=MAX_LINES)
        self._node = node
        self._port = port
        self._socket: socket.socket | None = None

    def send(self) -> None:
        """Send the waiting lines until the collector takes no more."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=1)
                print("connected")
            while self.waiting:
                self._socket.sendall(self.waiting[0].encode() + b"\n")
                self.waiting.popleft()
        except OSError:
            self._socket = None
            self._node.send_output("away", b"")
            print(f"the collector is away, {len(self.waiting)} lines wait")


def main() -> None:
    """Forward lines until the last one has been sent."""
    node = Node()
    sink = Sink(node, int(sys.argv[1]))
    last = False
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "logs":
            line = event["value"][0].as_py()
            last = last or json.loads(line)["message"] == LAST
            sink.waiting.append(line)
        if sink.waiting:
            sink.send()
        if last and not sink.waiting:
            break


if __name__ == "__main__":
    main()
