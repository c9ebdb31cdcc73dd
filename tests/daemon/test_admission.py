"""Which processes may attach as which node: only those started for it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dorad.daemon.broker.admission import Admission, Verdict
from dorad.daemon.broker.connection import Connection
from dorad.daemon.broker.listener import own_socket
from dorad.daemon.run import DataflowRun
from dorad.daemon.runmodel import RunServices
from dorad.dataflow.load import load
from dorad.launch.command import LaunchContext
from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command
from dorad.launch.spawner import Process
from dorad.logrecord import LogRecord
from dorad.node.protocol import VERSION
from tests.cli.running import write
from tests.daemon.flows import node
from tests.harness.waiting import until

pytestmark = pytest.mark.timeout(120)

NOBODY = 65534

HELLO = """
import json, os, socket, sys
config = json.loads(os.environ["DORA_NODE_CONFIG"])
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(config["daemon_socket"])
hello = {"t": "hello", "node": config["node_id"], "dynamic": False, "pid": os.getpid()}
sock.send(json.dumps({**hello, "version": VERSION}).encode())
answer = json.loads(sock.recv(65536))
print(os.environ.get("WHO", ""), answer["t"], answer.get("error"), flush=True)
""".replace("VERSION", str(VERSION))
"""A program that attaches as the node in its environment and prints the answer."""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as base:
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        yield


class Running:
    """A running dataflow, and the lines of its nodes."""

    def __init__(self, run: DataflowRun, path: Path, records: list[LogRecord]) -> None:
        self.run = run
        self.path = path
        self.records = records

    async def line_after(self, word: str) -> str:
        """Wait for a line with this prefix, and return the rest of it."""
        await until(lambda: any(each.message.startswith(word) for each in self.records))
        line = next(each.message for each in self.records if each.message.startswith(word))
        return line.removeprefix(word).strip()

    def hello_as(self, node_id: str) -> socket.socket:
        """Connect from this process, which no dataflow has started, and send a hello as a node."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(os.fspath(self.path))
        hello = {"t": "hello", "node": node_id, "dynamic": False, "pid": 1, "version": VERSION}
        sock.send(json.dumps(hello).encode())
        sock.setblocking(False)
        return sock


class SlowHolder:
    """A holder that answers late, as on a busy machine."""

    def __init__(self, holder: HolderClient, seconds: float) -> None:
        self._holder = holder
        self._seconds = seconds

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        process = await self._holder.spawn(command, stdout_fd, stderr_fd, tag=tag)
        await asyncio.sleep(self._seconds)
        return process


@asynccontextmanager
async def running(folder: Path, slow: float = 0.0, **programs: str) -> AsyncIterator[Running]:
    """Run a dataflow of nodes without inputs and outputs; each program has `HELLO` in hello.py."""
    nodes = "".join(f"\n      - {{id: {name}, path: {name}.py}}" for name in programs)
    write(folder, f"\n    nodes:{nodes}\n      - {{id: dyn, path: dynamic}}\n", **programs)
    (folder / "hello.py").write_text(HELLO)
    records: list[LogRecord] = []
    async with HolderClient.start() as holder:
        context = LaunchContext(load(folder / "dataflow.yml"), dict(os.environ))
        path = own_socket()
        spawner = SlowHolder(holder, slow) if slow else holder
        run = DataflowRun("id", context, spawner, path, watch=records.extend)
        task = asyncio.create_task(run.run())
        try:
            await until(path.exists)
            yield Running(run, path, records)
        finally:
            run.kill("was killed")
            await task


WAITS = """
    import time
    print("there", flush=True)
    time.sleep(600)
"""


async def answer(sock: socket.socket) -> dict[str, Any]:
    data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
    sock.close()
    return json.loads(data) if data else {}


async def test_a_process_that_the_dataflow_did_not_start_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, a=WAITS) as on:
        await on.line_after("there")
        line_after = await answer(on.hello_as("a"))
    assert line_after["t"] == "refused"
    assert line_after["error"] == (
        f"process {os.getpid()} of user {os.getuid()} is not one that the dataflow has started "
        "for node 'a'; only `path: dynamic` nodes attach from outside"
    )


async def test_a_dynamic_node_attaches_from_outside(tmp_path: Path) -> None:
    async with running(tmp_path, a=WAITS) as on:
        await on.line_after("there")
        assert (await answer(on.hello_as("dyn")))["t"] == "welcome"


async def test_no_process_attaches_as_another_node_that_is_between_two_processes(
    tmp_path: Path,
) -> None:
    other = """
        import json, os, subprocess, sys
        config = json.loads(os.environ["DORA_NODE_CONFIG"]) | {"node_id": "a"}
        environ = os.environ | {"DORA_NODE_CONFIG": json.dumps(config), "WHO": "child"}
        subprocess.run([sys.executable, "hello.py"], env=environ, check=True)
        subprocess.run([sys.executable, "hello.py"], env=environ, start_new_session=True)
        os.environ |= environ | {"WHO": "itself"}
        exec(open("hello.py").read())
    """
    async with running(tmp_path, a=WAITS, b=other) as on:
        assert (await on.line_after("child")).startswith("refused process")
        assert (await on.line_after("itself")).startswith("refused process")


FAMILIES = {
    "grandchild": "subprocess.run(['sh', '-c', f'{sys.executable} hello.py; true'])",
    "session": "subprocess.run([sys.executable, 'hello.py'], start_new_session=True)",
    "orphan": "subprocess.run(['sh', '-c', f'setsid {sys.executable} hello.py &'])",
    "fork": "os.fork() or (exec(open('hello.py').read()), os._exit(0))",
    "exec": "os.execv(sys.executable, [sys.executable, 'hello.py'])",
}


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_child_process_of_a_node_may_attach_as_the_node(
    tmp_path: Path, family: str
) -> None:
    program = f"""
        import os, subprocess, sys, time
        os.environ["WHO"] = "child"
        {FAMILIES[family]}
        time.sleep(600)
    """
    async with running(tmp_path, a=program) as on:
        assert await on.line_after("child") == "welcome None"


async def test_a_hello_waits_until_the_pid_of_the_node_is_known(tmp_path: Path) -> None:
    program = "import os; os.environ['WHO'] = 'itself'; exec(open('hello.py').read())"
    async with running(tmp_path, slow=1.0, a=program) as on:
        assert await on.line_after("itself") == "welcome None"


async def test_a_waiting_hello_of_another_process_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, slow=1.0, a=WAITS) as on:
        line_after = await answer(on.hello_as("a"))
    assert line_after["t"] == "refused"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
async def test_a_process_of_the_node_that_changed_its_user_is_refused(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, a=WAITS) as on:
        await on.line_after("there")
        on.path.chmod(0o666)
        for folder in on.path.parents[:2]:
            folder.chmod(0o755)
        config = on.run.broker.node_config("a")
        done = await asyncio.to_thread(
            subprocess.run,
            ["/usr/bin/env", "python3", "-c", HELLO],
            env={"PATH": "/usr/bin:/bin", "DORA_NODE_CONFIG": config},
            user=NOBODY,
            capture_output=True,
            text=True,
        )
        for folder in on.path.parents[:2]:
            folder.chmod(0o700)
    assert "welcome" not in done.stdout


async def test_a_process_left_by_an_earlier_process_of_the_node_is_refused(
    tmp_path: Path,
) -> None:
    program = """
        import os, subprocess, sys, time
        print("started", flush=True)
        if os.path.exists("second"):
            time.sleep(600)
        open("second", "w").close()
        wait = "import os, time\\nwhile not os.path.exists('go'): time.sleep(0.01)\\n"
        text = wait + open("hello.py").read()
        subprocess.Popen([sys.executable, "-c", text], env=os.environ | {"WHO": "left"},
            start_new_session=True, stdout=open("answer", "w"))
        sys.exit(1)
    """
    write(tmp_path, "nodes:\n  - {id: a, path: a.py, restart_policy: on-failure}\n", a=program)
    (tmp_path / "hello.py").write_text(HELLO)
    records: list[LogRecord] = []
    async with HolderClient.start() as holder:
        context = LaunchContext(load(tmp_path / "dataflow.yml"), dict(os.environ))
        run = DataflowRun("id", context, holder, own_socket(), watch=records.extend)
        task = asyncio.create_task(run.run())
        await until(lambda: [each.message for each in records].count("started") == 2)
        (tmp_path / "go").touch()
        line_after = tmp_path / "answer"
        await until(lambda: line_after.read_text().endswith("\n"))
        assert line_after.read_text().startswith("left refused process")
        run.kill("was killed")
        await task


# -- one process with the number of another ----------------------------------------------------


class Started:
    """A process that the launcher reports as a node's."""

    ended = False
    uid = os.getuid()

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def owns(self, pid: int) -> bool:
        return pid == self._pid


async def test_the_pid_of_an_exited_process_admits_no_other() -> None:
    """It connected and ended; another process of the node may have its pid now."""
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(f"{folder}/s")
        listener.listen()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = (
            f"import socket; s = socket.socket(fileno={client.fileno()}); s.connect('{folder}/s')"
            "; s.detach(); input()"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, pass_fds=[client.fileno()], stdin=subprocess.PIPE
        )
        accepted, _ = await asyncio.to_thread(listener.accept)
        accepted.setblocking(False)
        connection = Connection(accepted, lambda *_: None, lambda *_: None)
        admission = Admission(RunServices())
        admission.add("a", Started(process.pid))
        assert admission.verdict(node("a"), connection) is Verdict.ADMITTED
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        # Another process has the pid now; `Started` reports it as the node's.
        assert admission.verdict(node("a"), connection) is Verdict.FOREIGN
        connection.close("the test has ended")
        client.close()
        listener.close()
