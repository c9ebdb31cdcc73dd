"""A new daemon checks inherited descriptors: wrong ones are detected and closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from dorad.daemon.broker.restore import Kept, RestoreError
from dorad.node.protocol import close_all
from dorad.shm import create
from tests.daemon.flows import dataflow, node
from tests.daemon.test_adoption import BrokerSeries, as_stored, broker_series

FLOW = dataflow(node("a"), node("b", x="a/out"))


def plain(size: int) -> int:
    """Memory that is not sealed."""
    memory = os.memfd_create("test")
    os.ftruncate(memory, size)
    return memory


def pipe() -> int:
    """The end of a pipe."""
    read, write = os.pipe()
    os.close(write)
    return read


def of_size(fd: int) -> int:
    return os.fstat(fd).st_size


def zeros(fd: int) -> int:
    """A sealed mailbox with nothing in it."""
    return create.create_mailbox(of_size(fd))


WRONG: dict[str, tuple[str, int, Callable[[int], int], str]] = {
    "a mailbox that is not sealed": (
        "box/b", 0, lambda fd: plain(of_size(fd)), r"node 'b': its mailbox is not sealed memory"
    ),
    "a mailbox of another size": (
        "box/b", 0, lambda fd: create.create_mailbox(4096), r"node 'b': its mailbox has 4096 bytes"
    ),
    "an empty mailbox": ("box/b", 0, zeros, r"node 'b': its mailbox is empty"),
    "a pipe as a mailbox": ("box/a", 0, lambda _: pipe(), r"node 'a': its mailbox is not sealed"),
    "a pipe as a doorbell": ("box/b", 1, lambda _: pipe(), r"node 'b': its doorbell is pipe:"),
    "a file as a space bell": ("box/b", 2, lambda _: plain(0), r"node 'b': its doorbell is /mem"),
    "a segment of another size": (
        "segment/", 0, lambda _: create.create_mailbox(4096), r"node 'a': a segment of its samples"
    ),
    "a pipe as a segment": ("segment/", 0, lambda _: pipe(), r"node 'a': a segment of its samples"),
    "a pipe as a connection": ("conn/a", 0, lambda _: pipe(), r"node 'a': its connection is not"),
    "a stream as a connection": (
        "conn/a", 0, lambda _: socket.socket().detach(), r"node 'a': its connection is not a Unix"
    ),
    "a pipe as the listener": ("listener", 0, lambda _: pipe(), r"the socket for its nodes is not"),
}  # fmt: skip


async def fail(on: BrokerSeries, kept: Kept, message: str) -> None:
    """Let a new broker fail on the descriptors; then their owners close them."""
    await on.kill_broker()
    with pytest.raises(RestoreError, match=message):
        await on.make().open(kept)
    for name, descriptors in kept.descriptors.items():
        on.store.drop(name)
        close_all(descriptors)


@pytest.mark.parametrize("case", WRONG)
async def test_wrong_descriptors_are_detected(case: str) -> None:
    prefix, index, replace, message = WRONG[case]
    async with broker_series(FLOW) as on:
        with on.client() as client:
            await client.attach("a")
            client.send_packet("grow", size=1 << 16)
            await client.packet_of("grown")
            kept = Kept(on.store.copies(), as_stored(on.broker.snapshot()))
            (name,) = [each for each in kept.descriptors if each.startswith(f"test/{prefix}")]
            descriptors = list(kept.descriptors[name])
            right = descriptors[index]
            descriptors[index] = replace(right)
            os.close(right)
            kept.descriptors[name] = tuple(descriptors)
            await fail(on, kept, message)


async def test_a_pool_that_its_owner_has_shortened_is_detected() -> None:
    async with broker_series(FLOW) as on:
        with on.client() as client:
            await client.attach("a")
            client.send_packet("grow", size=1 << 16)
            (owner,) = await client.descriptors_with("grown")
            os.ftruncate(owner, 4096)
            os.close(owner)
            kept = Kept(on.store.copies(), as_stored(on.broker.snapshot()))
            await fail(on, kept, r"node 'a': a segment of its samples has 4096 bytes instead")


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": {"a": {}, "b": {}}},
        {"boxes": 7},
        {"edges": [[1]]},
        {"orphans": [[1, [["a"]]]]},
        {"next_segment": "x"},
        {"handovers": {"slots": {"x": 1}}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_an_invalid_snapshot_is_reported(change: dict[str, Any]) -> None:
    async with broker_series(FLOW) as on:
        snapshot = as_stored(on.broker.snapshot()) | change
        await fail(on, Kept(on.store.copies(), snapshot), r"its snapshot is invalid")
