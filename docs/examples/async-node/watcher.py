"""Awaits readings in one coroutine while another one prints heartbeats."""

import asyncio

from dora import Node


async def readings(node: Node, seen: list[float]) -> None:
    """Collect readings until the stream is over."""
    while (event := await node.recv_async()) is not None:
        if event["type"] == "INPUT":
            seen.append(event["value"][0].as_py())


async def heartbeat(seen: list[float]) -> None:
    """Print a line every quarter of a second, to show that nothing blocks the event loop."""
    while True:
        await asyncio.sleep(0.25)
        print(f"heartbeat: {len(seen)} readings so far")


async def main() -> None:
    """Run both; the heartbeat ends with the readings."""
    node = Node()
    seen: list[float] = []
    beating = asyncio.create_task(heartbeat(seen))
    await readings(node, seen)
    beating.cancel()
    print(f"done: {len(seen)} readings, mean {sum(seen) / len(seen):.2f}")


if __name__ == "__main__":
    asyncio.run(main())
