"""Starting nodes, and their output."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from dorad.daemon.broker.admission import Admission
from dorad.daemon.broker.broker import Broker
from dorad.daemon.nodeprocesses import NodeProcesses
from dorad.daemon.runmodel import RunServices
from dorad.daemon.supervisor.processes import Launcher, broken_commands, log_name
from dorad.dataflow.load import load
from dorad.launch.command import LaunchContext
from dorad.launch.holder.client import HolderClient
from dorad.launch.host import KeptProcess, NoStore
from dorad.launch.model import Exit, LaunchError
from dorad.logs.dataflowlog import DataflowLog
from tests.cli.running import write
from tests.daemon.fakes import Stage
from tests.daemon.reading_daemon import ID
from tests.harness.waiting import DEADLINE_S, until, wait_until
from tests.logs.captured import in_files


class Store(NoStore):
    """Records the names that it gets."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ever: list[str] = []

    def store(self, name: str, fds: Sequence[int]) -> None:
        assert len(fds) == 3
        self.names.append(name)
        self.ever.append(name)

    def drop(self, name: str) -> None:
        self.names.remove(name)


class Fixture:
    def __init__(self, folder: Path, holder: HolderClient, marker: str | None) -> None:
        dataflow = load(folder / "dataflow.yml")
        self.context = LaunchContext(dataflow, dict(os.environ))
        self.node = dataflow.nodes[0]
        self.log = DataflowLog(ID, dataflow)
        self.store = Store()
        services = RunServices()
        services.store, services.marker = self.store, marker
        self.launcher = Launcher(
            ID,
            holder,
            self.context,
            self.log,
            services,
            lambda node, text: self.log.report("warn", node, text),
        )

    def written(self) -> list[str]:
        return [record.message for record in in_files(self.log.folder, self.node.id)]


@asynccontextmanager
async def launching(
    folder: Path, script: str, *, marker: str | None = None
) -> AsyncIterator[Fixture]:
    write(folder, "nodes: [{id: talk, path: talk.py}]", talk=script)
    async with asyncio.timeout(DEADLINE_S), HolderClient.start() as holder:
        made = Fixture(folder, holder, marker)
        try:
            yield made
        finally:
            made.log.close()


async def test_all_output_of_a_node_is_logged_when_its_exit_is_reported(tmp_path: Path) -> None:
    script = """
        import os, sys, time
        for number in range(1000): print(number)
        print("bad", file=sys.stderr, flush=True)
        while not os.path.exists("end"): time.sleep(0.01)
        sys.exit(3)
    """
    async with launching(tmp_path, script) as made:
        process = await made.launcher.start(made.node, "")
        assert process.pid in {child.pid for child in psutil.Process().children(recursive=True)}
        (tmp_path / "end").touch()
        assert made.store.names == [f"{ID}/log/talk/0"]
        assert await process.wait() == Exit(code=3)
        assert process.ended
        assert process.stderr == ("bad",)
        assert sorted(made.written()) == sorted([*map(str, range(1000)), "bad"])
        assert made.store.names == []


async def test_the_log_file_continues_when_a_node_is_restarted(tmp_path: Path) -> None:
    async with launching(tmp_path, "import os; print(os.environ['DORA_NODE_CONFIG'])") as made:
        for count in range(3):
            process = await made.launcher.start(made.node, f"start {count}", count)
            await process.wait()
        assert made.written() == ["start 0", "start 1", "start 2"]
        assert made.store.ever == [f"{ID}/log/talk/{count}" for count in range(3)]


async def test_old_and_new_process_of_a_replaced_node_have_separate_pipes(
    tmp_path: Path,
) -> None:
    async with launching(tmp_path, "print('x'); input()") as made:
        first = await made.launcher.start(made.node, "")
        second = await made.launcher.start(made.node, "")
        assert made.store.ever == [f"{ID}/log/talk/0", f"{ID}/log/talk/0/2"]
        await first.wait()
        await second.wait()
        assert made.written().count("x") == 2


async def test_nodes_carry_the_mark_of_their_daemon(tmp_path: Path) -> None:
    script = "import os; print(os.environ.get('DORA_DAEMON'))"
    async with launching(tmp_path, script, marker="mine") as made:
        await (await made.launcher.start(made.node, "")).wait()
        assert made.written() == ["mine"]


async def test_a_program_that_is_missing_leaves_nothing_behind(tmp_path: Path) -> None:
    async with launching(tmp_path, "") as made:
        (tmp_path / "talk.py").unlink()
        assert len(broken_commands(made.context)) == 1
        with pytest.raises(LaunchError, match="talk"):
            await made.launcher.start(made.node, "")
        assert made.store.names == []


async def test_descriptors_that_are_not_a_nodes_are_refused(tmp_path: Path) -> None:
    async with launching(tmp_path, "") as made:
        process = await made.launcher.start(made.node, "")
        await process.wait()
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        with pytest.raises(LaunchError, match="talk"):
            made.launcher.adopt(made.node, process._process, f"{ID}/talk/0", others)


async def test_the_last_lines_of_a_node_that_ended_earlier_come_from_its_log(
    tmp_path: Path,
) -> None:
    async with launching(tmp_path, "import sys; sys.exit('no camera')") as made:
        process = await made.launcher.start(made.node, "")
        await process.wait()
        again = made.launcher.adopt(made.node, process._process, f"{ID}/talk/0", ())
        assert await again.wait() == Exit(code=1)
        assert again.stderr == ("no camera",)


def test_descriptors_are_named_after_the_process() -> None:
    assert log_name("uuid/cam/0") == "uuid/log/cam/0"
    assert log_name("uuid/cam/3/2") == "uuid/log/cam/3/2"


TALKER = """
    import sys, time
    for number in range(30000):
        print(number, flush=True)
        if number % 1000 == 0:
            print("error", number, file=sys.stderr, flush=True)
            time.sleep(0.05)
    sys.exit(7)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as name:
        yield Path(name)


def started(folder: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.daemon.reading_daemon", str(folder)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.readline() == "reading\n"
    return process


def test_no_line_is_lost_or_doubled_while_daemons_are_killed(
    home: Path,
) -> None:
    write(home, "nodes: [{id: talk, path: talk.py}]", talk=TALKER)
    file = home / "out" / ID / "log_talk.jsonl"
    for kill in range(4):
        before = file.stat().st_size if kill else 0
        daemon = started(home)
        enough = before + 10_000 * kill
        wait_until(lambda enough=enough: file.exists() and file.stat().st_size >= enough)
        daemon.send_signal(signal.SIGKILL)
        daemon.communicate()
    last = started(home)
    out, _ = last.communicate(timeout=DEADLINE_S)
    assert out == "exited with code 7 error 29000\n"
    records = in_files(file.parent, "talk")
    lines = [record.message for record in records if record.stream == "stdout"]
    assert lines == [str(number) for number in range(30000)]
    errors = [record.message for record in records if record.stream == "stderr"]
    assert errors == [f"error {number}" for number in range(0, 30000, 1000)]


class Kept:
    """A running process that an earlier daemon left, and what its launcher makes of it."""

    exit = None
    ended = False

    def __init__(self, tag: str, pid: int) -> None:
        self.tag = f"{ID}/{tag}"
        self.pid = self.started = pid
        self.process = self
        self.signals: list[int] = []
        self.reaped = asyncio.Event()

    def adopt(self, _node: object, process: Kept, *_: object) -> Kept:
        return process

    def signal(self, number: int) -> None:
        self.signals.append(number)

    async def wait(self) -> None:
        self.reaped.set()


async def test_of_processes_that_are_not_adopted_no_output_is_kept(tmp_path: Path) -> None:
    """A daemon was killed while it replaced the node, or removed another one."""
    write(tmp_path, "nodes: [{id: talk, path: talk.py}]", talk="")
    old, new, removed = Kept("talk/0", 1), Kept("talk/1", 2), Kept("gone/0", 3)
    store = Store()
    store.names = [f"{ID}/log/gone/0"]
    pipe = os.pipe()
    services = RunServices()
    services.store = store
    stage = Stage(load(tmp_path / "dataflow.yml"))
    processes = NodeProcesses(
        cast("Launcher", old),
        Admission(services),
        cast("Broker", SimpleNamespace(start_finished=print)),
        services,
        stage,
    )
    dataflow = load(tmp_path / "dataflow.yml")
    descriptors = {f"{ID}/log/gone/0": pipe}
    kept = cast("list[KeptProcess]", [removed, old, new])
    adopted = processes.adopt(kept, descriptors, {2}, dataflow, str)
    assert adopted == {"talk": new}
    await until(old.reaped.is_set)
    assert [each.signals for each in (old, new, removed)] == [[9], [], [9]]
    assert store.names == []
    for descriptor in pipe:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
