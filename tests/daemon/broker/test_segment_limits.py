"""A node that requests shared memory without end gets an error; others are not affected."""

from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from dorad.daemon.broker.segments import MAX_SEGMENTS
from dorad.shm import create
from tests.daemon.clients import Client, Stage, pair, stage
from tests.daemon.flows import dataflow, node
from tests.harness.process import open_descriptors

PAGE = 4096
TIMES = 6000


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage(dataflow(node("a"), node("b", x="a/out"), node("c", x="a/out"))) as found:
        yield found


async def grow(client: Client, size: int = PAGE) -> dict[str, Any]:
    client.send_packet("grow", size=size, ask=1)
    while (packet := await client.packet()).get("t") not in ("grown", "full"):
        assert packet
    return packet


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_6000_requests_are_refused_past_a_limit_and_the_others_continue(on: Stage) -> None:
    before = open_descriptors()
    async with pair(on):
        async with on.attached("c") as client:
            answers = [await grow(client) for _ in range(TIMES)]
            kinds = Counter(answer["t"] for answer in answers)
            assert kinds == {"grown": MAX_SEGMENTS, "full": TIMES - MAX_SEGMENTS}
            assert f"{MAX_SEGMENTS} segments" in (await grow(client))["error"]
            # One descriptor a segment; the other nodes have a few.
            assert open_descriptors() < before + MAX_SEGMENTS + 200
            await on.makes_progress()
            client.send_packet("retire", segment=answers[0]["segment"])
            assert (await grow(client))["t"] == "grown"
            assert (await grow(client))["t"] == "full"


async def test_many_requests_at_once_are_answered_within_the_limit(on: Stage) -> None:
    async with on.attached("c") as client:
        for _ in range(100):
            client.send_packet("grow", size=PAGE)
        answers: Counter[str] = Counter()
        while answers.total() < 100:
            answers[(await client.packet())["t"]] += 1
        assert set(answers) == {"grown", "full"}
        assert (await grow(client))["t"] == "grown"


async def test_segments_of_an_ended_process_count_while_they_are_needed(on: Stage) -> None:
    async with on.attached("a") as first:
        for _ in range(MAX_SEGMENTS):
            await grow(first)
        assert (await grow(first))["t"] == "full"
    on.broker.released("a")
    async with on.attached("a") as second:
        assert (await grow(second))["t"] == "grown"


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the kernel says of the file system of shared memory: 100 pages, all free."""
    usage = SimpleNamespace(f_blocks=100, f_bavail=100, f_frsize=PAGE)
    monkeypatch.setattr(create.os, "statvfs", lambda path: usage)
    return usage


async def test_one_node_leaves_a_quarter_of_dev_shm_to_the_others(
    on: Stage, used: SimpleNamespace
) -> None:
    with on.client() as greedy, on.client() as other:
        await greedy.attach("c")
        await other.attach("a")
        assert (await grow(greedy, 50 * PAGE))["t"] == "grown"
        refused = await grow(greedy, 26 * PAGE)
        assert refused["error"].startswith(
            f"{26 * PAGE} bytes requested, and this node has {50 * PAGE} of the {75 * PAGE} "
        )
        assert (await grow(other, 26 * PAGE))["t"] == "grown"
        assert (await grow(greedy, 11 * PAGE))["t"] == "grown"
        used.f_bavail = 10
        assert (await grow(other, 11 * PAGE))["error"].startswith("/dev/shm is full: ")


@pytest.mark.usefixtures("used")
async def test_all_nodes_of_a_dataflow_leave_an_eighth_of_dev_shm_to_other_dataflows(
    on: Stage,
) -> None:
    with on.client() as first, on.client() as second:
        await first.attach("c")
        await second.attach("a")
        assert (await grow(first, 70 * PAGE))["t"] == "grown"
        refused = await grow(second, 18 * PAGE)
        assert f"this dataflow has {70 * PAGE} of the {700 * PAGE // 8} " in refused["error"]
        # What waits for its creation counts, too.
        second.send_packet("grow", size=17 * PAGE)
        second.send_packet("grow", size=17 * PAGE)
        answers = [(await second.packet())["t"]]
        while {"grown", "full"} - set(answers):
            answers.append((await second.packet())["t"])
        assert (answers.count("grown"), answers.count("full")) == (1, 1)
