"""A daemon in its own folders, apart from the user's, used through `dora`."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import psutil

from dorad.control.client import Client
from dorad.control.messages import NodeInfo
from hwtests.faults.flow import Flow

MARK = "FAULTS_BED"
TIMEOUT_S = 30.0


class DamageError(Exception):
    """Damage that ends the campaign."""


class Testbed:
    """Folders and a daemon for one campaign. It removes both at its end, also after an error."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.token = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="dora-faults-"))
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DORA", "PYTHON"))}
        self._env = {
            **kept,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.folder / "state"),
            MARK: self.token,
            **(env or {}),
        }
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        self.dora("up")
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the daemon; processes that still run then are a fault."""
        try:
            self.dora("down", "--force")
        except DamageError as damage:
            self.faults.append(str(damage))
        # Processes may be reparented and take a moment to exit.
        if not self.wait_until(lambda: not self.processes(), 10):
            for process in self.processes():
                self.faults.append(f"left behind: {process.pid} {self._command(process)}")
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def dora(self, *words: str) -> str:
        """Run a command and return its output. Raises DamageError if it fails."""
        try:
            done = subprocess.run(
                [Path(sys.executable).with_name("dora"), *words],
                env=self._env,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise DamageError(f"`dora {words[0]}` hangs") from None
        if done.returncode != 0:
            raise DamageError(f"`dora {words[0]}` failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that may fail."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("dora"), *words],
            env=self._env,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def client(self) -> Client:
        return Client(self.runtime / "dora" / "control.sock")

    def start(self, flow: Flow) -> str:
        """Start a dataflow; return its UUID once all its checks receive data."""
        flow.write()
        self.dora("start", str(flow.file), "--name", flow.name, "--detach")
        with self.client() as client:
            uuid = client.info(flow.name).info.uuid
        self.wait_for_data(flow)
        return uuid

    def stop(self, flow: Flow) -> None:
        self.dora("stop", flow.name)

    def statuses(self, flow: Flow) -> list[str]:
        """Return the statuses of all dataflows that had this name, the oldest first."""
        with self.client() as client:
            return [info.status for info in client.list() if info.name == flow.name]

    def nodes(self, flow: Flow) -> dict[str, NodeInfo]:
        with self.client() as client:
            return {node.node: node for node in client.nodes(flow.name)}

    def daemon_pid(self) -> int:
        with self.client() as client:
            return client.status().pid

    def holder(self) -> psutil.Process:
        """Return the process holder. Raises DamageError if there is none."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any("serve_daemons" in word for word in process.cmdline()):
                    return process
        raise DamageError("the daemon has no holder")

    def descriptors(self) -> tuple[int, int]:
        """Return the numbers of open descriptors of the daemon and of its holder."""
        return psutil.Process(self.daemon_pid()).num_fds(), self.holder().num_fds()

    def notices(self) -> list[str]:
        """Return the notices in the status of the daemon."""
        with self.client() as client:
            return client.status().notices

    def signal(self, pid: int, number: int) -> bool:
        """Send a signal to a process of this testbed; return False if it is not one."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if psutil.Process(pid).environ().get(MARK) != self.token:
                return False
            signal.pidfd_send_signal(handle, number)
        except (psutil.Error, ProcessLookupError):
            return False
        finally:
            os.close(handle)
        return True

    def processes(self) -> list[psutil.Process]:
        """Return running processes with this testbed's mark or its folder in their arguments."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(MARK) == self.token or any(
                    str(self.folder) in word for word in process.cmdline()
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def processes_of(self, flow: Flow) -> list[psutil.Process]:
        """Return the processes of one dataflow."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FAULTS_FOLDER") == str(flow.folder):
                    found.append(process)
        return found

    def wait_until_ended(self, flow: Flow) -> bool:
        """Wait until a dataflow has no process; return False if it still has one in the end."""
        return self.wait_until(lambda: not self.processes_of(flow))

    def wait_for_data(self, *flows: Flow) -> None:
        """Wait until every check has received something new. Raises DamageError if it does not."""
        before = {(flow.name, node): flow.counts(node)[0] for flow in flows for node in flow.checks}

        def stuck() -> list[str]:
            return [
                node
                for flow in flows
                for node in flow.checks
                if flow.counts(node)[0] <= before[flow.name, node]
            ]

        if not self.wait_until(lambda: not stuck()):
            raise DamageError(f"nothing arrives at {', '.join(stuck())} for {TIMEOUT_S:g} s")

    def wait_until(self, holds: Callable[[], object], seconds: float = TIMEOUT_S) -> bool:
        """Wait for a condition; return False if it does not hold in time."""
        give_up_at = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.02)
        return True

    def collect_faults(self, flows: Iterable[Flow]) -> None:
        """Add the faults that the dataflows have found."""
        for flow in flows:
            self.faults += [f"{flow.name}: {text}" for text in flow.faults()]

    @staticmethod
    def _command(process: psutil.Process) -> str:
        try:
            return " ".join(process.cmdline())[:200]
        except psutil.Error as error:
            return str(error)
