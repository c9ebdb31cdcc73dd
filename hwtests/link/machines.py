"""Two brokers in one process, which stand for two machines, and their link processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.control.messages import LinkTls
from dorad.daemon.broker.broker import Broker
from dorad.daemon.sharelink import read_tls
from dorad.dataflow.model import (
    LINK,
    Dataflow,
    Input,
    NodeKind,
    NodeOutput,
    NodeSpec,
    QueuePolicy,
)
from dorad.link.reports import Happened, Status
from dorad.node.attach import CONFIG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HELLO_DEADLINE_S = 60.0


class _Events:
    """Hears of nodes, and whether the link of a machine is up."""

    def __init__(self) -> None:
        self.up = False

    def on_link(self, report: Status | Happened) -> None:
        if isinstance(report, Status) and report.peers:
            self.up = all(peer.state == "up" for peer in report.peers.values())

    def on_connected(self, node_id: str, pid: int) -> None:
        pass

    on_waiting = on_connected

    def on_outputs_done(self, node_id: str) -> None:
        pass

    on_disconnected = on_outputs_done

    def on_operator_ended(self, node_id: str, operator: str) -> None:
        pass


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _node(node_id: str, source: str) -> NodeSpec:
    inputs: tuple[Input, ...] = ()
    if source:
        inputs = (Input("x", NodeOutput(source, "out"), 16, QueuePolicy.BACKPRESSURE),)
    return NodeSpec(node_id, NodeKind.PATH, path="x.py", inputs=inputs, outputs=("out",))


@contextlib.asynccontextmanager
async def _machine(path: Path, events: _Events, *nodes: NodeSpec) -> AsyncIterator[Broker]:
    flow = Dataflow(nodes, path.with_suffix(".yml"), path.parent)
    broker = Broker(flow, "bench", path, events, hello_deadline=HELLO_DEADLINE_S)
    await broker.open()
    try:
        broker.notifications.open_barrier()
        yield broker
    finally:
        await broker.close()


def _start_link(broker: Broker, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    broker.set_link(config)
    return subprocess.Popen(
        [sys.executable, "-m", "dorad.link"],
        env=os.environ | {CONFIG: broker.node_config(LINK)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def _until_up(events: _Events) -> None:
    async with asyncio.timeout(HELLO_DEADLINE_S):
        while not events.up:  # noqa: ASYNC110 - a plain attribute
            await asyncio.sleep(0.01)


def _contents(files: dict[str, str] | None) -> dict[str, Any] | None:
    """Return the `tls` section of a configuration, as the daemon passes it on."""
    return None if files is None else msgspec.to_builtins(read_tls(LinkTls(**files)))


@contextlib.asynccontextmanager
async def two_machines(
    scheme: str, tls: dict[str, dict[str, str]]
) -> AsyncIterator[tuple[Broker, Broker]]:
    """Yield the brokers of two machines whose links are up: `sender` on one, `receiver` on two."""
    address = f"{scheme}/127.0.0.1:{free_port()}"
    channel = {"name": "sender/out", "input": "x", "machine": "two", "reliable": True}
    arriving = {"name": "sender/out", "output": "out", "machine": "one"}
    here, there = _Events(), _Events()
    with tempfile.TemporaryDirectory(prefix="dora-link-") as folder:
        one, two = Path(folder, "one.sock"), Path(folder, "two.sock")
        async with (
            _machine(one, here, _node("sender", ""), _node(LINK, "sender")) as first,
            _machine(two, there, _node(LINK, ""), _node("receiver", LINK)) as second,
        ):
            common = {"dataflow": "bench"}
            sending = {"machine": "one", "listen": [address], "outgoing": [channel]}
            receiving = {"machine": "two", "connect": [address], "incoming": [arriving]}
            links = [
                _start_link(first, common | sending | {"tls": _contents(tls.get("one"))}),
                _start_link(second, common | receiving | {"tls": _contents(tls.get("two"))}),
            ]
            try:
                for events in (here, there):
                    await _until_up(events)
                yield first, second
            finally:
                for link in links:
                    link.kill()
                    link.wait()
