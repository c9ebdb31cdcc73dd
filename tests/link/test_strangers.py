"""Strangers at the port of a link: sockets without the certificate of a peer."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.daemon.clients import Program
from tests.link.certificates import Authority
from tests.link.links import DEADLINE_S, RECEIVER, SENDER, Connected, Link, Pair, lines, pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
ENDLESS = 10**6
BACK_S = 2.0


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
                await beta.kill()
                machines.links.remove(beta)
                beta = machines.start_beta(tls=fleet.issue("beta"))
                await beta.until(lambda: beta.status())
                began = time.monotonic()
                await both_up(alpha, beta)
                back = time.monotonic() - began
                print(f"{kind}: the restarted peer was back after {back:.2f} s")
                assert back < BACK_S


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
async def test_strangers_at_the_address_of_a_peer_keep_it_out_with_nothing_that_they_send(
    kind: str, tmp_path: Path
) -> None:
    """Both ends are killed meanwhile, one after the other."""
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
            for restarted in ("beta", "alpha"):
                if restarted == "beta":
                    await beta.kill()
                    machines.links.remove(beta)
                    beta = machines.start_beta(tls=fleet.issue("beta"))
                    await beta.until(beta.status)
                else:
                    await alpha.kill()
                    machines.links.remove(alpha)
                    alpha = machines.start_alpha(tls=fleet.issue("alpha"))
                    await alpha.until(alpha.status)
                began = time.monotonic()
                await both_up(alpha, beta)
                print(f"{kind}: {restarted} was back after {time.monotonic() - began:.2f} s")
                arrived = len(lines(out))
                await beta.until(lambda arrived=arrived: len(lines(out)) > arrived + 20)
        print(alpha.errors.decode())
