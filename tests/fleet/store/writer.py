"""A process that commits numbers to a store, two keys at a time, and prints each once it is done.

Usage: python -m tests.fleet.store.writer FILE
"""

import asyncio
import sys
from pathlib import Path

from dorafleet.store.model import Transaction
from dorafleet.store.sqlite import SqliteStore


async def main() -> None:
    store = await SqliteStore.open(Path(sys.argv[1]))
    first = len((await store.get("n/")).entries)
    for number in range(first, 1_000_000):
        value = str(number).encode()
        puts = {f"n/{number:08}": value, "last": value}
        await store.commit(Transaction({f"n/{number:08}": 0}, puts))
        print(number, flush=True)


asyncio.run(main())
