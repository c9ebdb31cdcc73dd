"""Tasks of the daemon that fail are reported."""

import asyncio
from contextlib import AsyncExitStack

from dorad.daemon.service import in_background


async def test_a_task_that_fails_is_reported_with_its_cause(caplog):
    async def measure() -> None:
        raise OSError("no descriptor is left")

    warned = asyncio.Queue[str]()
    async with AsyncExitStack() as stack:
        in_background(stack, measure(), "measuring", warned.put_nowait)
        async with asyncio.timeout(10):
            text = await warned.get()
    assert "measuring" in text
    assert "no descriptor is left" in text
    assert "Traceback" in caplog.text


async def test_a_task_is_cancelled_with_the_daemon_without_a_report():
    begun, warned = asyncio.Event(), []

    async def watch() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with AsyncExitStack() as stack:
        in_background(stack, watch(), "watching", warned.append)
        await begun.wait()
    (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "watching"]
    await asyncio.wait([task])
    assert task.cancelled()
    assert warned == []
