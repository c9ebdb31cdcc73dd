"""Channels that share a slow line, and how much of each is on the way."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dorad.dataflow.model import LINK, QueuePolicy
from tests.daemon.clients import Program
from tests.daemon.flows import dataflow, node
from tests.harness.slowline import RATE, slow_line
from tests.link.links import RECEIVER, SENDER, Connected, lines, machines_of, with_policy

pytestmark = pytest.mark.long

ENDLESS = 10**6
TRIES = 6


async def test_a_large_drop_edge_leaves_a_small_backpressure_edge_its_share_of_a_slow_line(
    tmp_path: Path,
) -> None:
    """The large one is more than the line takes. The small one sends 100 messages a second."""
    small, large = tmp_path / "small", tmp_path / "large"
    forth = with_policy(node(LINK, x="a/out", y="d/out"), QueuePolicy.DROP_OLDEST, 4)
    wait = QueuePolicy.BACKPRESSURE
    first = dataflow(node("a"), node("d"), only(forth, "x", wait))
    second = dataflow(
        node(LINK),
        with_policy(node("b", x=f"{LINK}/out"), wait, 4),
        with_policy(node("e", y=f"{LINK}/other"), QueuePolicy.DROP_OLDEST, 4),
    )
    outgoing = [
        {"name": "a/out", "machine": "beta", "input": "x", "reliable": True},
        {"name": "d/out", "machine": "beta", "input": "y", "reliable": False},
    ]
    incoming = [
        {"name": "a/out", "machine": "alpha", "output": "out"},
        {"name": "d/out", "machine": "alpha", "output": "other"},
    ]
    async with machines_of(first, second) as machines:
        port = int(machines.address.rpartition(":")[2])
        async with slow_line(port) as line:
            alpha = machines.start_alpha(outgoing=outgoing)
            beta = machines.start_beta(incoming=incoming, connect=[f"tcp/127.0.0.1:{line}"])
            await beta.until(lambda: beta.peer("alpha").get("state") == "up")
            await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
            async with (
                Connected(machines.beta, "b", RECEIVER, small),
                Connected(machines.beta, "e", RECEIVER, large),
                Program(machines.alpha, "a", SENDER, ENDLESS, 80, 0.01, tmp_path / "a"),
            ):
                await beta.until(lambda: len(lines(small)) > 100)
                alone = await rate(small)
                async with Program(
                    machines.alpha, "d", SENDER, ENDLESS, 20_000, 0.02, tmp_path / "d"
                ):
                    await beta.until(lambda: len(lines(large)) > 20)
                    # More than once: on a busy machine the sender itself may be late.
                    for _ in range(TRIES):
                        beside, of_large = await asyncio.gather(rate(small), rate(large))
                        print(f"{alone:.0f}/s alone, {beside:.0f}/s beside {of_large:.1f}/s large")
                        if beside > alone * 0.7 and of_large > 2:
                            break
                    else:
                        raise AssertionError("the small edge has no share of the line")
                    await alpha.until(lambda: is_shown(*alpha.status()["outgoing"]))


def is_shown(small: dict[str, Any], large: dict[str, Any]) -> bool:
    """Return True if a report shows that the large edge waits for the line, and both send."""
    rates = small["bytes_per_s"], large["bytes_per_s"]
    return large["wait"] > 50 and 0 < rates[0] < rates[1] < 2 * RATE


def only(spec: Any, input_id: str, policy: QueuePolicy) -> Any:
    """Return a node of which one input has another policy."""
    changed = with_policy(spec, policy, 4)
    inputs = [
        one if one.id == input_id else other
        for one, other in zip(changed.inputs, spec.inputs, strict=True)
    ]
    return replace(spec, inputs=tuple(inputs))


async def rate(file: Path, seconds: float = 5.0) -> float:
    """Return how many messages a second arrive."""
    begin, began = len(lines(file)), time.monotonic()
    await asyncio.sleep(seconds)
    return (len(lines(file)) - begin) / (time.monotonic() - began)
