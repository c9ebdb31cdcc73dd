"""Measure one output between two machines on loopback: ours beside raw Zenoh, in one run.

Latency is from before the call that sends to after the call that receives, at a fixed pace.
Throughput is from the first message to the last. All inputs have backpressure. Both systems take
turns, and each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from dorad.link.session import LEASE_MS
from hwtests.link.certificates import issue
from hwtests.link.machines import free_port, two_machines

NODES = Path(__file__).parent / "nodes"
SIZES = (8, 64, 4096, 64 << 10, 1 << 20, 8 << 20)
PACE_S = 0.005
SLOW_PACE_S = 0.1
"""For messages of a megabyte or more."""

BYTES = 256 << 20
MAX_MESSAGES = 20_000
DEADLINE_S = 120.0

Times = list[tuple[int, int]]


class Case(NamedTuple):
    """One thing that is measured."""

    scheme: str
    size: int
    paced: bool

    def count(self, scale: float) -> int:
        """Return how many messages it takes."""
        if self.paced:
            return max(20, int((400 if self.size < 1 << 20 else 60) * scale))
        return max(20, int(min(MAX_MESSAGES, BYTES // self.size) * scale))

    @property
    def interval_s(self) -> float:
        """The pause between two messages."""
        if not self.paced:
            return 0.0
        return PACE_S if self.size < 1 << 20 else SLOW_PACE_S


def parse(text: str) -> Times:
    """Return the times that a receiver has printed."""
    lines = [line.split() for line in text.splitlines() if line != "ready"]
    return [(int(sent), int(received)) for sent, received in lines]


def figure(case: Case, times: Times) -> float:
    """Return the median latency in us, or the throughput in MB/s."""
    if case.paced:
        warm = times[len(times) // 10 :]
        return statistics.median(received - sent for sent, received in warm) / 1000
    span_s = (times[-1][1] - times[0][1]) / 1e9
    return (len(times) - 1) * case.size / span_s / 1e6


def _start(words: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | (env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def ours(case: Case, scale: float, tls: dict[str, dict[str, str]]) -> Times:
    """Measure two nodes on two machines of ours."""
    count = str(case.count(scale))
    async with two_machines(case.scheme, tls) as (one, two):
        receiver = _start(
            [str(NODES / "receiver.py"), count], {"DORA_NODE_CONFIG": two.node_config("receiver")}
        )
        assert receiver.stdout is not None
        await asyncio.to_thread(receiver.stdout.readline)
        sender = _start(
            [str(NODES / "sender.py"), count, str(case.size), str(case.interval_s)],
            {"DORA_NODE_CONFIG": one.node_config("sender")},
        )
        try:
            out, _ = await asyncio.to_thread(receiver.communicate, timeout=DEADLINE_S)
        finally:
            for process in (sender, receiver):
                process.kill()
                process.communicate()
        return parse(out)


def zenoh_settings(case: Case, tls: dict[str, str] | None, address: str, listen: bool) -> str:
    """Return the configuration of raw Zenoh: like ours, where it can be."""
    settings: dict[str, object] = {
        "mode": "peer",
        "listen": {"endpoints": [address] if listen else []},
        "connect": {"endpoints": [] if listen else [address]},
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
    }
    transport: dict[str, object] = {"shared_memory": {"enabled": False}}
    link: dict[str, object] = {"tx": {"lease": LEASE_MS}}
    if tls is not None:
        link["tls"] = {
            "root_ca_certificate": tls["ca"],
            "listen_certificate": tls["certificate"],
            "listen_private_key": tls["key"],
            "connect_certificate": tls["certificate"],
            "connect_private_key": tls["key"],
            "enable_mtls": True,
        }
    settings["transport"] = transport | {"link": link}
    return json.dumps(settings)


async def raw(case: Case, scale: float, tls: dict[str, dict[str, str]]) -> Times:
    """Measure a publisher and a subscriber of Zenoh."""
    count = str(case.count(scale))
    address = f"{case.scheme}/127.0.0.1:{free_port()}"
    settings = [
        zenoh_settings(case, tls.get(name), address, listen)
        for name, listen in (("two", True), ("one", False))
    ]
    receiver = _start([str(NODES / "zenoh_receiver.py"), count, settings[0]])
    assert receiver.stdout is not None
    await asyncio.to_thread(receiver.stdout.readline)
    sender = _start(
        [
            str(NODES / "zenoh_sender.py"),
            count,
            str(case.size),
            str(case.interval_s),
            settings[1],
        ]
    )
    try:
        out, _ = await asyncio.to_thread(receiver.communicate, timeout=DEADLINE_S)
    finally:
        for process in (sender, receiver):
            process.kill()
            with contextlib.suppress(ValueError):
                process.communicate()
    return parse(out)


def show(figures: dict[tuple[Case, str], list[float]]) -> Table:
    """Return the table of all figures."""
    table = Table("transport", "bytes", "measure", "ours", "raw Zenoh", "ours / raw")
    for case in dict.fromkeys(case for case, _ in figures):
        mine, other = (
            statistics.median(figures.get((case, name)) or [float("nan")])
            for name in ("ours", "raw")
        )
        unit, digits = ("latency p50, us", 0) if case.paced else ("throughput, MB/s", 2)
        table.add_row(
            case.scheme,
            f"{case.size:,}",
            unit,
            f"{mine:,.{digits}f}",
            f"{other:,.{digits}f}",
            f"{mine / other:.2f}",
        )
    return table


async def measure(options: argparse.Namespace) -> dict[tuple[Case, str], list[float]]:
    """Measure everything, the systems taking turns."""
    figures: dict[tuple[Case, str], list[float]] = {}
    cases = [
        Case(scheme, size, paced)
        for scheme in options.scheme or ("tcp", "tls")
        for paced in (True, False)
        for size in options.size or SIZES
    ]
    with tempfile.TemporaryDirectory(prefix="dora-link-tls-") as folder:
        for number in range(options.rounds):
            for case in cases:
                tls = issue(Path(folder)) if case.scheme == "tls" else {}
                for name, act in (("ours", ours), ("raw", raw)):
                    value = figure(case, await act(case, options.scale, tls))
                    figures.setdefault((case, name), []).append(value)
                    sys.stderr.write(f"round {number + 1}: {name} {case}: {value:.2f}\n")
    return figures


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m hwtests.link", description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0, help="messages, as a share")
    options.add_argument("--size", type=int, action="append", help="only this size, in bytes")
    options.add_argument("--scheme", choices=("tcp", "tls"), action="append")
    Console(width=100).print(show(asyncio.run(measure(options.parse_args()))))


if __name__ == "__main__":
    main()
