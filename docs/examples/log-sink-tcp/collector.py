"""Listens on a TCP port of this machine once the sink reports it away; counts the lines."""

import json
import socket
import sys

from dora import Node


def main() -> None:
    """Take one connection, and read it to its end."""
    Node().next()
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        connection, _ = server.accept()
        with connection, connection.makefile(encoding="utf-8") as lines:
            messages = [json.loads(line)["message"] for line in lines]
    print(f"{len(messages)} lines, the last one is: {messages[-1]}")


if __name__ == "__main__":
    main()
