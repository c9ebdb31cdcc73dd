"""Strangers at the port of a link: sockets without the certificate of a peer."""

import asyncio
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from dorad.link.gate import PLACES
from tests.daemon.clients import Program
from tests.link.certificates import Authority
from tests.link.links import DEADLINE_S, RECEIVER, SENDER, Connected, Link, Pair, lines, pair

pytestmark = pytest.mark.long

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
ADDRESSES = 500
"""Of each host over IPv6: it has a network of /64, and uses another address for each socket."""
ENDLESS = 10**6
BACK_S = 2.0
"""How much later than without strangers a restarted peer may be back."""
MAX_DESCRIPTORS = 600
MAX_GROWTH = 64 << 20
"""Bytes that a link may take for strangers."""
_CLONE_NEWNET = 0x40000000


@asynccontextmanager
async def strangers(
    machines: Pair, kinds: Sequence[str], count: int, hosts: Sequence[str]
) -> AsyncIterator[None]:
    """Hold sockets open at the port of alpha, and open them again when it closes them."""
    host, _, port = machines.address.partition("/")[2].rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.link.strangers", host, port, str(count)),
        *(json.dumps(hosts), *kinds),
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
            print(*kinds, "sockets:", (await process.stdout.readline()).decode().strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Bounds:
    """Memory and descriptors of a link, which strangers must not take."""

    def __init__(self, link: Link) -> None:
        """Read what it takes without strangers."""
        self._link = link
        self._process = psutil.Process(link.process.pid)
        self._before = self._process.memory_info().rss

    def check(self) -> None:
        """Check that it runs and has taken little."""
        assert self._link.process.poll() is None, self._link.errors.decode()
        assert self._process.num_fds() < MAX_DESCRIPTORS
        assert self._process.memory_info().rss < self._before + MAX_GROWTH


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


@contextmanager
def ipv6_networks() -> Iterator[None]:
    """Let this thread, and what it starts, be in a network namespace with all of fd00::/16."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network namespace takes root and the program ip")
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if library.unshare(_CLONE_NEWNET) != 0:
            pytest.skip("no network namespace can be made here")
        try:
            for words in ("link set lo up", "-6 route add local fd00::/16 dev lo"):
                subprocess.run(["ip", *words.split()], check=True, timeout=DEADLINE_S)
            Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
            yield
        finally:
            assert library.setns(before.fileno(), _CLONE_NEWNET) == 0


class Network(NamedTuple):
    """Where alpha listens, where beta connects, and the addresses of strangers, by host."""

    listen: str
    connect: str
    strangers: tuple[str, ...]
    shown: tuple[str, ...]
    """The hosts of the strangers, as reports name them."""


NETWORKS = {
    "IPv4": Network("127.0.0.1", "127.0.0.1", HOSTS, HOSTS),
    "IPv6": Network(
        "[fd00:a::1]",
        "[fd00:a::1]",
        tuple(f"fd00:{host}::{n:x}" for n in range(1, ADDRESSES + 1) for host in (1, 2, 3)),
        tuple(f"fd00:{host}::/64" for host in (1, 2, 3)),
    ),
    # One socket for both: an IPv4 address is then written as ::ffff:127.0.0.2.
    "mapped": Network("[::]", "127.0.0.1", HOSTS, HOSTS),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    with ipv6_networks() if request.param == "IPv6" else nullcontext():
        yield NETWORKS[request.param]


class Attack(NamedTuple):
    """How many sockets strangers have, and what they do."""

    number: int
    kinds: tuple[str, ...]


ATTACKS = {
    "nonsense": Attack(300, ("nonsense",)),
    "drip": Attack(300, ("drip",)),
    "hello": Attack(300, ("hello",)),
    "no certificate": Attack(300, ("tls",)),
    "foreign": Attack(300, ("foreign",)),
    "fleet": Attack(100, ("fleet",)),
    "storm": Attack(100, ("storm",)),
    "certificates": Attack(200, ("chain", "expired")),
    "greetings": Attack(300, ("large", "name", "protocols", "records")),
    "after the greeting": Attack(300, ("half-closed", "slow-record", "garbage")),
}
FROM_AFAR = {
    "partial": Attack(2000, ("partial",)),
    "silent": Attack(2000, ("silent",)),
    "mixed": Attack(600, tuple(kind for each in ATTACKS.values() for kind in each.kinds)),
}


def kinds_of(attack: Attack, fleet: Authority, folder: Path) -> list[str]:
    """Return the arguments for an attack, with certificates of the fleet and of another one."""
    foreign = Authority(folder / "foreign")
    certificates = {
        "foreign": lambda: foreign.issue("beta"),
        "chain": lambda: foreign.issue_chain("chain", 100),
        "expired": lambda: fleet.issue("old", expired=True),
        "fleet": lambda: fleet.issue("mallory"),
    }
    kinds = []
    for kind in attack.kinds:
        if kind in certificates:
            files = certificates[kind]()
            kinds.append(f"tls:{files['certificate']}:{files['key']}")
        else:
            kinds.append(kind)
    return kinds


@pytest.mark.parametrize(
    ("attack", "network"),
    [*product(("partial", "silent"), NETWORKS), ("mixed", "IPv6")],
    indirect=["network"],
)
async def test_sockets_of_strangers_lose_no_message_and_keep_no_peer_out(
    attack: str, network: Network, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    subject = f"IP:{network.connect.strip('[]')}"
    count, kinds = FROM_AFAR[attack].number, kinds_of(FROM_AFAR[attack], fleet, tmp_path)
    alpha_tls, beta_tls = (fleet.issue(each, subject) for each in ("alpha", "beta"))
    async with pair(scheme="tls", host=network.connect) as machines:
        port = machines.address.rpartition(":")[2]
        alpha = machines.start_alpha(tls=alpha_tls, listen=[f"tls/{network.listen}:{port}"])
        beta = machines.start_beta(tls=beta_tls)
        await both_up(alpha, beta)
        beta, usual = await restart(machines, beta, beta_tls)
        bounds = Bounds(alpha)
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 80, 0.01, tmp_path / "a"),
        ):
            await beta.until(lambda: len(lines(out)) > 10)
            async with strangers(machines, kinds, count, network.strangers):
                arrived = len(lines(out))
                # Longer than it takes to notice that a connection is not read.
                until = time.monotonic() + 25
                await beta.until(lambda: time.monotonic() > until)
                numbers = [int(line.split()[0]) for line in lines(out)]
                assert numbers == list(range(len(numbers))), "messages were lost"
                assert len(numbers) > arrived + 200
                bounds.check()
                beta, back = await restart(machines, beta, beta_tls)
                print(f"{attack}: the peer was back after {back:.2f} s, and {usual:.2f} without")
                assert back < usual + BACK_S
                # The daemon is told, too.
                await alpha.until(lambda: any(each.get("strangers") for each in alpha.reports))
        reports = [each["strangers"] for each in alpha.reports if each.get("strangers")]
        assert any(
            f"from {host} and 2 more (" in report for report in reports for host in network.shown
        ), reports
        assert b"connections of strangers that were closed" in alpha.errors


@pytest.mark.parametrize("attack", ATTACKS)
async def test_strangers_at_the_address_of_a_peer_do_not_disturb_its_link_and_it_comes_back(
    attack: str, tmp_path: Path
) -> None:
    """After a kill of each end, and a cut of the cable. That takes longer than without them."""
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    count, kinds = ATTACKS[attack].number, kinds_of(ATTACKS[attack], fleet, tmp_path)
    async with pair(scheme="tls") as machines:
        cable = await machines.cable()
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await both_up(alpha, beta)
        bounds = Bounds(alpha)

        async def flows(back_from: str, began: float) -> None:
            await both_up(alpha, beta)
            print(f"{attack}: back from {back_from} after {time.monotonic() - began:.2f} s")
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 20)

        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ENDLESS, 80, 0.01, tmp_path / "a"),
            strangers(machines, kinds, count, ["127.0.0.1"]),
        ):
            arrived = len(lines(out))
            await beta.until(lambda: len(lines(out)) > arrived + 200)
            numbers = [int(line.split()[0]) for line in lines(out)]
            assert numbers == list(range(len(numbers))), "messages were lost"
            beta, back = await restart(machines, beta, fleet.issue("beta"))
            await flows("the kill of beta", time.monotonic() - back)
            await cable.cut()
            await beta.until(lambda: beta.peer("alpha")["state"] != "up")
            await cable.heal()
            await flows("the cut", time.monotonic())
            bounds.check()
            await alpha.kill()
            machines.links.remove(alpha)
            await beta.until(lambda: beta.peer("alpha")["state"] != "up")
            alpha = machines.start_alpha(tls=fleet.issue("alpha"))
            await alpha.until(alpha.status)
            await flows("the kill of alpha", time.monotonic())


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
