"""Link processes between two brokers, over real Zenoh sessions on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.daemon.clients import Program
from tests.link.links import RECEIVER, SENDER, lines, pair

if TYPE_CHECKING:
    from pathlib import Path


async def test_messages_arrive_as_they_were_sent(tmp_path: Path) -> None:
    out, other, sent = tmp_path / "b", tmp_path / "c", tmp_path / "a"
    async with pair() as machines:
        alpha, beta = machines.start_alpha(), machines.start_beta()
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")
        async with (
            Program(machines.beta, "b", RECEIVER, out),
            Program(machines.beta, "c", RECEIVER, other),
            Program(machines.alpha, "a", SENDER, 20, 80, 0.002, sent),
        ):
            await beta.until(lambda: len(lines(out)) == len(lines(other)) == 20)
        assert lines(out) == [f"{n} 10 int64 True frame" for n in range(20)]
        assert await alpha.stop() == await beta.stop() == 0
        assert alpha.status()["outgoing"][0]["sent"] == 20
        assert beta.status()["incoming"][0]["received"] == 20
