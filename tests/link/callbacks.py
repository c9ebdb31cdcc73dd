"""Two sessions of this process over loopback: ADDRESS COUNT.

Prints `new` or `kept` for each callback: whether its thread still has what an earlier callback has
stored there. It runs in a separate process, because Zenoh's threads live as long as their process.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import zenoh

from dorad.link.config import ChannelIn, ChannelOut, LinkConfig
from dorad.link.session import Session
from tests.harness.waiting import until

if TYPE_CHECKING:
    from dorad.link.direct import TakeSample


def as_queued(_machine: str, _queue: object, otherwise: TakeSample) -> TakeSample:
    """Queue all samples."""
    return otherwise


async def _main(address: str, count: int) -> None:
    out, into = ChannelOut("a/out", "beta", "x"), ChannelIn("a/out", "alpha", "out")
    sending = LinkConfig("flow", "alpha", connect=[address], outgoing=[out])
    receiving = LinkConfig("flow", "beta", listen=[address], incoming=[into])
    stored = threading.local()
    found: list[str] = []

    def arrived(is_data: bool) -> None:
        if is_data:
            found.append("kept" if hasattr(stored, "before") else "new")
            stored.before = True

    with (
        closing(Session(receiving, 2, arrived, as_queued)),
        closing(Session(sending, 1, lambda _is_data: None, as_queued)) as alpha,
    ):
        await until(lambda: alpha.seen)
        publisher = alpha.publisher("beta", "data", zenoh.Priority.DATA)
        for number in range(count):
            publisher.put(b"%d" % number)
        await until(lambda: len(found) == count)
    print("\n".join(found))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
