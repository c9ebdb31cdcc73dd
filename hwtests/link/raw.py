"""A publisher and a subscriber of Zenoh, with nothing but Python around them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from dorad.link.settings import LEASE_MS
from hwtests.bench.process import MeasurementError
from hwtests.link.cases import Case, Times, parse
from hwtests.link.certificates import issue
from hwtests.link.network import LOOPBACK, Network, free_port

NODES = Path(__file__).parent / "nodes"
DEADLINE_S = 40.0


def measure(case: Case, scale: float, folder: Path, network: Network = LOOPBACK) -> Times:
    """Send all messages of a case; `folder` keeps certificates.

    Raises:
        MeasurementError: it was late.
    """
    count = str(case.count(scale))
    address = f"{case.scheme}/{network.two}:{free_port()}"
    tls = issue(folder) if case.scheme == "tls" else {}
    listening = settings(tls.get("two"), address, listen=True)
    connecting = settings(tls.get("one"), address, listen=False)
    with ExitStack() as stack:
        receiver = _start(stack, network.enter_two, "zenoh_receiver.py", count, listening)
        assert receiver.stdout is not None
        receiver.stdout.readline()
        words = (count, str(case.size), str(case.interval_s))
        _start(stack, network.enter_one, "zenoh_sender.py", *words, connecting)
        try:
            output, _ = receiver.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{case}: raw Zenoh is not done after {DEADLINE_S:g} s"
            ) from None
    return parse(output)


def settings(tls: dict[str, str] | None, address: str, *, listen: bool) -> str:
    """Return a configuration of Zenoh: that of a link process, where it can be."""
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
    return json.dumps(
        {
            "mode": "peer",
            "listen": {"endpoints": [address] if listen else []},
            "connect": {"endpoints": [] if listen else [address]},
            "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
            "transport": {"shared_memory": {"enabled": False}, "link": link},
        }
    )


def _start(
    stack: ExitStack, enter: Sequence[str], script: str, *words: str
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*enter, sys.executable, NODES / script, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
