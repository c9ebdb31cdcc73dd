"""Links through a router: no machine can be reached by another one, as behind NAT."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from dorad.dataflow.model import QueuePolicy
from dorafleet.cli.router import router_config
from tests.daemon.clients import Program
from tests.link.certificates import Authority
from tests.link.links import DEADLINE_S, RECEIVER, SENDER, Connected, Link, Pair, lines, pair


@asynccontextmanager
async def router(
    address: str, config: str = '{mode: "router"}', **changed: Any
) -> AsyncIterator[None]:
    """Run a router that listens at an address."""
    changes = {"listen/endpoints": [address], "scouting/multicast/enabled": False} | changed
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.link.router", config, json.dumps(changes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        await process.wait()


def start(machines: Pair, **given: Any) -> tuple[Link, Link]:
    """Start both link processes: both only connect to the router."""
    through = {"listen": [], "connect": [machines.address], "router": True}
    alpha = machines.start_alpha(**through, **given.get("alpha", {}), reliable=True)
    return alpha, machines.start_beta(**through, **given.get("beta", {}))


async def is_up(alpha: Link, beta: Link) -> None:
    await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
    await beta.until(lambda: beta.peer("alpha").get("state") == "up")


async def test_machines_that_only_dial_out_exchange_messages_through_a_router(
    tmp_path: Path,
) -> None:
    """The router comes after the links, as at the boot of a whole site, and goes once.

    What comes back is a peer, which passes messages on as a router does.
    """
    out, sent = tmp_path / "b", tmp_path / "a"
    async with pair(QueuePolicy.BACKPRESSURE, 4) as machines:
        alpha, beta = start(machines)
        why = f"the router {machines.address} cannot be reached: nothing answers there"
        await alpha.until(lambda: why in alpha.peer("beta").get("reason", ""))
        await beta.until(lambda: why in beta.peer("alpha").get("reason", ""))
        # Where Zenoh's own source raised it is of no use to who reads it.
        assert ".rs" not in alpha.peer("beta")["reason"]
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 40, 100_000, 0, sent),
        ):
            async with router(machines.address):
                await is_up(alpha, beta)
                await beta.until(lambda: len(lines(out)) >= 1)
                for link in (alpha, beta):
                    ports = psutil.Process(link.process.pid).net_connections("inet")
                    assert [port.status for port in ports] == ["ESTABLISHED"]
            why = f"the connection to the router {machines.address} was lost"
            await alpha.until(lambda: why in alpha.peer("beta").get("reason", ""))
            await beta.until(lambda: why in beta.peer("alpha").get("reason", ""))
            async with router(machines.address, '{mode: "peer"}'):
                await beta.until(lambda: len(lines(out)) >= 40)
                await beta.kill()
                machines.links.remove(beta)
                why = "no link process of beta"
                await alpha.until(lambda: why in alpha.peer("beta").get("reason", ""))
        assert lines(out) == [f"{n} 12500 int64 True frame" for n in range(40)]


async def test_a_router_with_the_printed_configuration_holds_each_robot_to_its_name(
    tmp_path: Path,
) -> None:
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    own = fleet.issue("router")
    # The files of the machine that the router runs on.
    tls = {
        "root_ca_certificate": own["ca"],
        "listen_certificate": own["certificate"],
        "listen_private_key": own["key"],
        "enable_mtls": True,
    }
    async with (
        pair(QueuePolicy.BACKPRESSURE, 4, scheme="tls") as machines,
        router(
            machines.address,
            json.dumps(router_config(machines.address, ["alpha", "beta"])),
            **{"transport/link/tls": tls},
        ),
    ):
        tls_of = {name: {"tls": fleet.issue(name)} for name in ("alpha", "beta", "mallory")}
        alpha, impostor = start(machines, alpha=tls_of["alpha"], beta=tls_of["mallory"])
        await impostor.until(lambda: impostor.peer("alpha").get("state") == "absent")
        await alpha.until(alpha.status)
        assert alpha.peer("beta")["state"] == "absent"
        await impostor.kill()
        machines.links.remove(impostor)
        beta = machines.start_beta(
            listen=[], connect=[machines.address], router=True, **tls_of["beta"]
        )
        await is_up(alpha, beta)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, 5, 80, 0, tmp_path / "a"),
        ):
            await beta.until(lambda: len(lines(out)) == 5)
