"""Strangers at the port of a link: sockets without the certificate of a peer."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from dorad.link.gate import PLACES
from tests.daemon.clients import Program
from tests.link.certificates import Authority
from tests.link.links import DEADLINE_S, RECEIVER, SENDER, Connected, Link, Pair, lines, pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.long

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
ENDLESS = 10**6
BACK_S = 2.0
"""How much later than without strangers a restarted peer may be back."""
MAX_DESCRIPTORS = 600


@asynccontextmanager
async def strangers(
    machines: Pair, kind: str, count: int, files: dict[str, str] | None = None, *hosts: str
) -> AsyncIterator[None]:
    """Hold sockets open at the port of alpha, and open them again when it closes them."""
    host, _, port = machines.address.partition("/")[2].rpartition(":")
    credentials = ("", "") if files is None else (files["certificate"], files["key"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.link.strangers", host, port, kind, str(count)),
        *(*credentials, *(hosts or HOSTS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert await process.stdout.readline() == b"ready\n"
        yield
        process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            print(kind, "sockets:", (await process.stdout.readline()).decode().strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def both_up(alpha: Link, beta: Link) -> None:
    await beta.until(lambda: beta.peer("alpha").get("state") == "up")
    await alpha.until(lambda: alpha.peer("beta").get("state") == "up")


async def restart(machines: Pair, beta: Link, tls: dict[str, str]) -> tuple[Link, float]:
    """Kill the link process of beta; return a new one, and how long it takes to be linked."""
    await beta.kill()
    machines.links.remove(beta)
    alpha = machines.links[0]
    await alpha.until(lambda: alpha.peer("beta")["state"] != "up")
    beta = machines.start_beta(tls=tls)
    await beta.until(beta.status)
    began = time.monotonic()
    await both_up(alpha, beta)
    return beta, time.monotonic() - began


@pytest.mark.parametrize("kind", ["partial", "silent"])
async def test_two_thousand_sockets_of_strangers_lose_no_message_and_keep_no_peer_out(
    kind: str, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await both_up(alpha, beta)
        beta, usual = await restart(machines, beta, fleet.issue("beta"))
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 80, 0.01, tmp_path / "a"),
        ):
            await beta.until(lambda: len(lines(out)) > 10)
            async with strangers(machines, kind, 2000):
                arrived = len(lines(out))
                # Longer than it takes to notice that a connection is not read.
                until = time.monotonic() + 25
                await beta.until(lambda: time.monotonic() > until)
                numbers = [int(line.split()[0]) for line in lines(out)]
                assert numbers == list(range(len(numbers))), "messages were lost"
                assert len(numbers) > arrived + 200
                assert alpha.process.poll() is None, alpha.errors.decode()
                assert psutil.Process(alpha.process.pid).num_fds() < MAX_DESCRIPTORS
                beta, back = await restart(machines, beta, fleet.issue("beta"))
                print(f"{kind}: the peer was back after {back:.2f} s, and {usual:.2f} without them")
                assert back < usual + BACK_S
                # The daemon is told, too.
                await alpha.until(lambda: any(each.get("strangers") for each in alpha.reports))
        assert b"connections of strangers that were closed" in alpha.errors


ATTACKS = {
    "nonsense": 300,
    "drip": 300,
    "hello": 300,
    "tls-without": 300,
    "tls-foreign": 300,
    "tls-fleet": 100,
}
"""What strangers do, and how many sockets they have."""


@pytest.mark.parametrize("kind", ATTACKS)
async def test_strangers_at_the_address_of_a_peer_do_not_disturb_its_link_and_it_comes_back(
    kind: str, tmp_path: Path
) -> None:
    """Both ends are killed meanwhile, one after the other. That takes longer than without them."""
    out = tmp_path / "b"
    fleet, foreign = Authority(tmp_path / "fleet"), Authority(tmp_path / "foreign")
    issuers = {"tls-foreign": foreign, "tls-fleet": fleet}
    files = issuers[kind].issue("mallory") if kind in issuers else None
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await both_up(alpha, beta)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 80, 0.01, tmp_path / "a"),
            strangers(machines, kind.partition("-")[0], ATTACKS[kind], files, "127.0.0.1"),
        ):
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 200)
            numbers = [int(line.split()[0]) for line in lines(out)]
            assert numbers == list(range(len(numbers))), "messages were lost"
            beta, back = await restart(machines, beta, fleet.issue("beta"))
            print(f"{kind}: beta was back after {back:.2f} s")
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 20)
            await alpha.kill()
            machines.links.remove(alpha)
            await beta.until(lambda: beta.peer("alpha")["state"] != "up")
            alpha = machines.start_alpha(tls=fleet.issue("alpha"))
            await alpha.until(alpha.status)
            began = time.monotonic()
            await both_up(alpha, beta)
            print(f"{kind}: alpha was back after {time.monotonic() - began:.2f} s")
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 20)


async def test_no_program_but_the_gate_connects_to_zenoh(tmp_path: Path) -> None:
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        await alpha.until(alpha.status)
        if b"CONFIG_TCP_MD5SIG" in alpha.errors:
            pytest.skip("this kernel has no keys for TCP connections")
        port = int(machines.address.rpartition(":")[2])
        connections = psutil.Process(alpha.process.pid).net_connections("tcp")
        ports = {each.laddr.port for each in connections if each.status == "LISTEN"}
        assert len(ports) == PLACES + 1
        for source in ("127.0.0.1", "127.128.0.1"):
            attempts = [
                asyncio.open_connection("127.0.0.1", each, local_addr=(source, 0))
                for each in ports - {port}
            ]
            async with asyncio.timeout(DEADLINE_S):
                results = await asyncio.gather(
                    *(asyncio.wait_for(attempt, 1.0) for attempt in attempts),
                    return_exceptions=True,
                )
            assert {type(each) for each in results} == {TimeoutError}
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await both_up(alpha, beta)
