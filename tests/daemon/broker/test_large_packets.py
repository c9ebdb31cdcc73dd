"""A dataflow with many subscribers with long names, whose edges do not fit one packet."""

import asyncio
import os
import subprocess
import sys

from dorad.node import protocol
from dorad.node.connection import DaemonConnection
from tests.daemon.clients import stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

LONG = 240
CONSUMERS = 60
INPUTS = 10

ONCE = """
from dora import Node
node = Node()
node.send_output("out", b"x")
"""


async def test_600_subscribers_with_very_long_names_get_all_messages() -> None:
    names = [f"{number}".rjust(LONG, "n") for number in range(CONSUMERS)]
    inputs = {f"{number}".rjust(LONG, "i"): "a/out" for number in range(INPUTS)}
    flow = dataflow(node("a"), *(node(name, **inputs) for name in names))
    async with stage(flow) as on:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ONCE,
            env={**os.environ, "DORA_NODE_CONFIG": on.broker.node_config("a")},
            stderr=subprocess.PIPE,
        )
        _, output = await process.communicate()
        assert (process.returncode, output) == (0, b"")
        counters = on.broker.stats.counters()
        assert len(counters) == 600
        assert {each.sent for each in counters} == {1}


async def test_a_large_packet_waits_for_a_node_that_does_not_read_yet() -> None:
    """More packets than a socket holds, each in its own file; all arrive."""
    async with stage() as on:
        session = await asyncio.to_thread(DaemonConnection, on.path, "c", dynamic=False)
        for number in range(400):
            on.broker.notifications.node_failed("c", f"{number}", "x" * 70_000, [])
        await until(lambda: read_all(session) == 400)
        assert list(session.daemon_events.failed) == [f"{number}" for number in range(400)]
        await asyncio.to_thread(session.done)


def read_all(session: DaemonConnection) -> int:
    """Read waiting packets; return how many were read so far."""
    session.read_mail()
    return len(session.daemon_events.failed)


async def test_packets_of_a_node_stay_bounded() -> None:
    """Only the daemon's packets may come in a file."""
    async with stage() as on:
        async with on.attached("c") as client:
            content = os.memfd_create("content")
            os.write(content, b'{"t":"note","text":"' + b"x" * protocol.MAX_PACKET + b'"}')
            client.send(b'{"t":"note","large":true}', [content])
            os.close(content)
            assert "no text" in (await client.packet_of("refused"))["error"]
