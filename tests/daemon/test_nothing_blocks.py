"""A complete daemon in the event loop of the test, where blocking calls raise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import NoDaemonError
from dorad.daemon.paths import DaemonPaths
from dorad.daemon.service import Service
from tests.harness.blocking import nothing_blocks
from tests.harness.flows import counting, seen
from tests.harness.waiting import until

__all__ = ["nothing_blocks"]

pytestmark = pytest.mark.timeout(120)

ALLOWED = {
    # Lookup of programs: a stat or two for each start of a node.
    "dorad/launch/command.py": {"command_for"},
    "dorad/launch/programs.py": {"check_open", "environment_bin", "find_program"},
    # The command of a process is sent to the holder in a memfd.
    "dorad/launch/holder/link.py": {"_request_spawn"},
    "dorad/node/payload.py": {"pack"},
    # Own folders and sockets, when the daemon or a dataflow starts or ends.
    "dorad/daemon/service.py": {"_prepare"},
    "dorad/daemon/database.py": {"_restore_spare"},
    "dorad/daemon/adoption.py": {"_end_unknown"},
    "dorad/daemon/broker/listener.py": {"open", "close"},
    "dorad/shm/create.py": {"unlink_stale"},
    # A folder of its own in memory, with the secrets of nodes that have ended.
    "dorad/launch/secrets.py": {"close", "remove"},
    # What a dataflow is, beside its log files: small, written at its start and its end.
    "dorad/logs/about.py": {"write"},
    "dorad/logs/disk.py": {"prepare"},
    # Facts of the kernel about a process that attaches: no disk access.
    "dorad/procinfo.py": {"stat_fields"},
    # The same about this process.
    "dorad/daemon/descriptors.py": {"_own_numbers"},
    "dorad/launch/membership.py": {"control_groups", "_environ"},
    # Log lines go to the page cache: the kernel makes a process wait only when it has more unsaved
    # data than the machine's memory allows for.
    "dorad/logs/logfile.py": {"append"},
}
"""Functions that touch local files: the only calls that may block."""


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[AsyncClient]:
    """Run a daemon in this loop; yield a client."""
    paths = DaemonPaths(folder / "run", folder / "state")
    service = Service(paths)
    running = asyncio.create_task(service.run())
    client = AsyncClient(paths.control)
    await until(lambda: running.done() or paths.control.exists())
    while True:
        try:
            await client.open()
            break
        except NoDaemonError:
            assert not running.done(), running.exception()
    try:
        yield client
    finally:
        await client.close()
        service.end()
        assert await running == 0


async def test_a_dataflow_from_start_to_end_blocks_the_daemon_nowhere(
    tmp_path_factory: pytest.TempPathFactory,
    nothing_blocks: BlockBuster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dorad.diskspace.EVERY_S", 0.0)  # as if it were due at each look
    for function in nothing_blocks.functions.values():
        for file, names in ALLOWED.items():
            function.can_block_in(file, names)
    folder = tmp_path_factory.mktemp("d")
    dataflow = counting(folder)
    (folder / "second.py").write_text((folder / "sink.py").read_text())
    second = {"path": "second.py", "env": {"SEEN": str(folder / "seen twice")}}
    async with daemon(folder) as client:
        await client.start(dataflow, name="one")
        await until(lambda: len(seen(folder)) > 10)
        await client.set_param("source", "gain", 3, dataflow="one")
        assert (await client.get_param("source", "gain", dataflow="one")).value == 3
        await client.delete_param("source", "gain", dataflow="one")
        await client.add_node({"id": "second", **second}, dataflow="one")
        await client.connect("source/number", "second/number", dataflow="one")
        await until((folder / "seen twice").exists)
        await client.replace_node(
            "second",
            {"id": "second", **second, "inputs": {"number": "source/number"}},
            dataflow="one",
        )
        await client.disconnect("source/number", "second/number", dataflow="one")
        await client.remove_node("second", dataflow="one")
        await client.restart_node("source", dataflow="one")
        await until(lambda: seen(folder).count(0) == 2)
        assert len((await client.top()).nodes) == 2
        assert len(await client.nodes("one")) == 2
        assert (await client.topics("one")).topics
        assert not (await client.status()).notices
        await client.restart("one")
        await until(lambda: seen(folder).count(0) == 3)
        await client.stop("one")
        assert [flow.status for flow in await client.list()] == ["finished", "finished"]
        await client.start(dataflow, name="two")
        await client.stop("two", force=True)
        assert len(await client.clean()) == 3
