"""A tap, as a process: `python -m dorad.daemon.tap.process PARENT echo|publish`.

It is a node like others, except that no file declares it. `echo` writes every message of its inputs
to standard output. `publish` sends on its only output what standard input asks for. It ends when
standard input does, when the daemon dies, and when the dataflow lets go of it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dorad.daemon.tap.frames import PREFIX, head
from dorad.launch.prctl import die_with_parent

if TYPE_CHECKING:
    from typing import BinaryIO

    from dorad.node.node import Node


def main(parent: int, task: str) -> None:
    """Serve until there is nothing left to do."""
    die_with_parent(parent)
    # What a library prints must not come between frames.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    if task == "echo":
        threading.Thread(target=_end_with_input, daemon=True).start()
    from dorad.node.node import Node

    try:
        node = Node()
    except RuntimeError as error:
        _write(out, {"kind": "error", "text": str(error)})
        return
    _write(out, {"kind": "ready"})
    if task == "echo":
        _echo(node, out)
    else:
        _publish(node, sys.stdin.buffer, out)


def _end_with_input() -> None:
    """Nobody listens any more: what waits for a message, or for room, need not be told."""
    while os.read(0, 1):  # not sys.stdin, whose lock would be in the way of an ordinary end
        pass
    os._exit(0)


def _echo(node: Node, out: BinaryIO) -> None:
    from dorad.control.arrays import to_ipc

    while (event := node.next()) is not None and event["type"] != "STOP":
        if event["type"] == "INPUT":
            metadata = {key: _plain(value) for key, value in event["metadata"].items()}
            payload = to_ipc(event["value"])
            topic = event["id"]
            del event  # waiting below must not keep the sender's memory
            _write(out, {"kind": "message", "topic": topic, "metadata": metadata}, payload)


def _publish(node: Node, orders: BinaryIO, out: BinaryIO) -> None:
    from dorad.node.offline.arrowjson import from_json

    (output,) = node.node_config()["outputs"]
    while prefix := orders.read(PREFIX.size):
        size, _ = PREFIX.unpack(prefix)
        order = json.loads(orders.read(size))
        try:
            arrays = [from_json(value) for value in order["data"]]
            for array in arrays:
                node.send_output(output, array, order["metadata"])
        except (ValueError, RuntimeError, TypeError, OverflowError) as error:
            _write(out, {"kind": "error", "text": str(error)})
        else:
            _write(out, {"kind": "sent"})


def _plain(value: Any) -> Any:
    """A metadata value as JSON has it: a time as ISO 8601 text, NaN and infinities as null."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _write(out: BinaryIO, content: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    rest = memoryview(payload)
    start = memoryview(head(content, len(rest)))
    try:
        while start or rest:
            part = start or rest
            written = out.write(part) or 0
            if start:
                start = start[written:]
            else:
                rest = rest[written:]
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
