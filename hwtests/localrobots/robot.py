"""One robot that is a few processes of this machine, in a network namespace if it is given one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.dataflow.model import LINK
from hwtests.bench.process import MeasurementError, environment

BIN = Path(sys.executable).parent
READY_S = 30.0
END_S = 15.0
MARK = "DORAD_LOCAL_ROBOT"
"""A variable that all processes of a robot inherit."""


class LocalRobot:
    """A robot. Nothing runs until `start`; `end` leaves no process behind."""

    def __init__(self, name: str, folder: Path, enter: Sequence[str] = ()) -> None:
        """Keep everything in `folder`, whose path must be short; `enter` precedes each command."""
        self.name = name
        self.folder = folder
        self.enter = enter
        self._started: list[subprocess.Popen[bytes]] = []
        run, state = folder / "run", folder / "state"
        for each in (run, state):
            each.mkdir(mode=0o700, parents=True)
        self.env = environment(BIN.parent) | {
            "XDG_RUNTIME_DIR": str(run),
            "XDG_STATE_HOME": str(state),
            "HOME": str(folder),
            MARK: str(folder),
        }
        self.socket = run / "dora/control.sock"
        self.log = folder / "log"

    def start(self, *arguments: str) -> None:
        """Start its dorad, and wait until it answers.

        Raises:
            MeasurementError: it does not get ready.
        """
        process = self.begin(BIN / "dorad", *arguments)
        end = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(ControlError), Client(self.socket) as client:
                client.status()
                return
            if process.poll() is not None or time.monotonic() > end:
                raise MeasurementError(f"the dorad of {self.name} is not ready\n{self.tail()}")
            time.sleep(0.02)

    def begin(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a process of the robot, whose output goes to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*self.enter, *command],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Return all its processes that run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return [each for each in found if each.pid != os.getpid()]

    def links(self) -> list[psutil.Process]:
        """Return its link processes."""
        with Client(self.socket) as client:
            found = [node.pid for node in client.nodes() if node.node == LINK]
        return [psutil.Process(pid) for pid in found if pid]

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def end(self) -> None:
        """End everything that it has started."""
        for process in reversed(self._started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
        for left in self.processes():
            with contextlib.suppress(psutil.Error):
                left.kill()
        for process in self._started:
            process.kill()
            process.wait()
