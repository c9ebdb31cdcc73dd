"""A `dorad` in its own folders that a test starts, kills and restarts."""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dorad.control.client import Client, NoDaemonError
from dorad.daemon.paths import DaemonPaths
from tests.harness.waiting import DEADLINE_S, wait_until

from . import leaks
from .commands import Service, run_command
from .dataflow import clean_environment
from .process import marked

MARKER = "DORAD_TEST_DAEMON"


class Daemon:
    """One daemon, and the processes that it starts."""

    def __init__(self, folder: Path) -> None:
        """`folder` must have a short path: sockets go into it."""
        self.folder = folder
        self.token = uuid.uuid4().hex
        self.bin = Path(sys.executable).parent
        for name in ("run", "state"):
            (folder / name).mkdir(mode=0o700)
        self.env = clean_environment(
            self.bin,
            {
                "XDG_RUNTIME_DIR": str(folder / "run"),
                "XDG_STATE_HOME": str(folder / "state"),
                MARKER: self.token,
            },
        )
        self.paths = DaemonPaths(folder / "run" / "dora", folder / "state" / "dora")
        self.process: Service | None = None

    def start(self, *arguments: str) -> "Daemon":
        """Start it as a child of the test, and wait until it answers."""
        self.process = Service("dorad", arguments, self.folder / "dorad.log", env=self.env)
        wait_until(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"dorad ended:\n{self.log}"
        if not self.paths.control.exists():
            return False
        try:
            with self.client() as client:
                return client.status().pid == self.process.pid
        except NoDaemonError:
            return False

    def kill(self) -> None:
        """SIGKILL it; its nodes keep running."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Send SIGTERM and wait for its exit."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"dorad did not end:\n{self.log}") from None

    @property
    def log(self) -> str:
        """Its stdout and stderr so far."""
        path = self.folder / "dorad.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def client(self) -> Client:
        """Return a new client."""
        return Client(self.paths.control)

    def dora(
        self, *words: str | Path, cwd: Path | None = None, deadline: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a `dora` command to its end."""
        return run_command("dora", words, env=self.env, cwd=cwd or self.folder, timeout=deadline)

    def dora_ok(self, *words: str | Path, cwd: Path | None = None) -> str:
        """Run a `dora` command that must succeed, and return its output."""
        done = self.dora(*words, cwd=cwd)
        assert done.returncode == 0, (
            f"dora {' '.join(map(str, words))}: exit {done.returncode}\n"
            f"{done.stdout}{done.stderr}\ndorad:\n{self.log}"
        )
        return done.stdout

    def begin(self, *words: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start a `dora` command; the caller ends it."""
        return subprocess.Popen(
            [self.bin / "dora", *words],
            env=self.env,
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[psutil.Process]:
        """Return all running descendants of this test's commands."""
        found = []
        for pid in marked(MARKER, self.token, argument=str(self.folder)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def clear(self) -> list[str]:
        """Kill all processes that are left, and return them as text."""
        left = []
        for process in self.processes():
            try:
                left.append(f"{process.pid} {' '.join(process.cmdline())}")
                process.kill()
            except psutil.Error:
                continue
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        return left


@contextmanager
def daemon() -> Iterator[Daemon]:
    """Start a daemon and end it; fail if a process of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="dd-", dir="/tmp"))
    found = Daemon(folder)
    try:
        yield found.start()
        if found.process is not None and found.process.poll() is None:
            found.end()
        with contextlib.suppress(AssertionError):  # what is left is reported below
            wait_until(lambda: not found.processes())
    finally:
        left = found.clear()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"left behind: {left}"


@contextmanager
def emptied(found: Daemon) -> Iterator[Daemon]:
    """Yield the daemon; afterwards stop and forget all its dataflows, and see that it has nothing.

    A test that has killed the daemon has no daemon to check.
    """
    before, pid = leaks.kept_for_dataflows(found.pid, found.folder), found.pid
    yield found
    with found.client() as client:
        for flow in client.list():
            if flow.status in ("starting", "running", "stopping"):
                client.stop(flow.uuid, force=True)
        client.clean()
    if found.pid == pid:
        kept: list[str] = []

        def has_nothing() -> bool:
            now = leaks.kept_for_dataflows(pid, found.folder)
            kept[:] = (now - before).elements()
            return not kept

        try:
            wait_until(has_nothing)
        except AssertionError:
            raise AssertionError(f"the daemon keeps of dataflows that are gone: {kept}") from None
