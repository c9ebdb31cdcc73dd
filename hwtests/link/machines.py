"""Two brokers in one process, which stand for two machines, and their link processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.daemon.broker.broker import Broker
from dorad.dataflow.model import Dataflow, Input, NodeKind, NodeOutput, NodeSpec, QueuePolicy
from dorad.launch.helper import LINK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HELLO_DEADLINE_S = 60.0


class _Events:
    """Hears of nodes; nothing depends on it here."""

    def on_connected(self, node_id: str, pid: int) -> None:
        pass

    on_waiting = on_connected

    def on_outputs_done(self, node_id: str) -> None:
        pass

    on_disconnected = on_outputs_done

    def on_operator_ended(self, node_id: str, operator: str) -> None:
        pass


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _node(node_id: str, source: str) -> NodeSpec:
    inputs: tuple[Input, ...] = ()
    if source:
        inputs = (Input("x", NodeOutput(source, "out"), 16, QueuePolicy.BACKPRESSURE),)
    return NodeSpec(node_id, NodeKind.PATH, path="x.py", inputs=inputs, outputs=("out",))


@contextlib.asynccontextmanager
async def _machine(path: Path, *nodes: NodeSpec) -> AsyncIterator[Broker]:
    flow = Dataflow(nodes, path.with_suffix(".yml"), path.parent)
    broker = Broker(flow, "bench", path, _Events(), hello_deadline=HELLO_DEADLINE_S)
    await broker.open()
    try:
        broker.notifications.open_barrier()
        yield broker
    finally:
        await broker.close()


def _start_link(path: Path, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as inherited:
        inherited.connect(os.fspath(path))
        process = subprocess.Popen(
            [sys.executable, "-m", "dorad.link", "link"],
            env=os.environ | {LINK: str(inherited.fileno())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(inherited.fileno(),),
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode() + b"\n")
    process.stdin.flush()
    return process


def _wait_until_up(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        peers = json.loads(line).get("peers", {})
        if peers and all(each["state"] == "up" for each in peers.values()):
            return
    raise RuntimeError("a link process has ended")


def _drain(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.read()


@contextlib.asynccontextmanager
async def two_machines(
    scheme: str, tls: dict[str, dict[str, str]]
) -> AsyncIterator[tuple[Broker, Broker]]:
    """Yield the brokers of two machines whose links are up: `sender` on one, `receiver` on two."""
    address = f"{scheme}/127.0.0.1:{free_port()}"
    channel = {"name": "sender/out", "input": "x", "machine": "two", "reliable": True}
    arriving = {"name": "sender/out", "output": "out", "machine": "one"}
    with tempfile.TemporaryDirectory(prefix="dora-link-") as folder:
        one, two = Path(folder, "one.sock"), Path(folder, "two.sock")
        async with (
            _machine(one, _node("sender", ""), _node("link", "sender")) as first,
            _machine(two, _node("link", ""), _node("receiver", "link")) as second,
        ):
            configs = (
                (
                    one,
                    {"machine": "one", "listen": [address], "outgoing": [channel]},
                    tls.get("one"),
                ),
                (
                    two,
                    {"machine": "two", "connect": [address], "incoming": [arriving]},
                    tls.get("two"),
                ),
            )
            links = [
                _start_link(path, {"dataflow": "bench", "tls": section} | config)
                for path, config, section in configs
            ]
            try:
                for link in links:
                    await asyncio.to_thread(_wait_until_up, link)
                draining = [asyncio.create_task(asyncio.to_thread(_drain, each)) for each in links]
                yield first, second
            finally:
                for link in links:
                    link.kill()
                    link.wait()
            await asyncio.gather(*draining)
