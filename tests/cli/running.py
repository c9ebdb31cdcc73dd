"""`dora run` as a process that a test watches, signals and kills."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.dataflow import clean_environment
from tests.harness.process import marked
from tests.harness.waiting import DEADLINE_S, wait_until

MARKER = "DORAD_TEST_RUN"


def write(folder: Path, yaml: str, **scripts: str) -> None:
    """Write `dataflow.yml` and a Python file for each script."""
    (folder / "dataflow.yml").write_text(textwrap.dedent(yaml), encoding="utf-8")
    for name, source in scripts.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")


@dataclass
class Running:
    """A started `dora run`; its output goes to two files."""

    process: subprocess.Popen[bytes]
    folder: Path
    runtime: Path
    environ: dict[str, str]
    token: str
    begun: float = field(default_factory=time.monotonic)

    @property
    def out(self) -> str:
        """Its stdout so far."""
        return (self.folder / "stdout").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    @property
    def sockets(self) -> list[str]:
        """The names of the existing sockets."""
        return [path.name for path in self.runtime.glob("dora/*.sock")]

    def until(self, holds: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Wait until a condition holds."""
        wait_until(
            holds,
            why=lambda: f"it did not come to that; stdout:\n{self.out}\nstderr:\n{self.err}",
            deadline_s=deadline_s,
        )

    def until_prints(self, text: str) -> None:
        """Wait until `text` is on stdout or stderr."""
        self.until(lambda: text in self.out or text in self.err or self.process.poll() is not None)
        assert text in self.out + self.err, f"stdout:\n{self.out}\nstderr:\n{self.err}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to `dora run` alone."""
        self.process.send_signal(number)

    def processes(self) -> list[int]:
        """Return all running descendants."""
        return [pid for pid in marked(MARKER, self.token) if pid != self.process.pid]

    def end(self, code: int | None = None, deadline: float = DEADLINE_S) -> float:
        """Wait for its exit and return the seconds it ran; fail if a process or socket is left."""
        try:
            found = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs; stdout:\n{self.out}\nstderr:\n{self.err}") from None
        seconds = time.monotonic() - self.begun
        if code is not None:
            assert found == code, f"exit {found}; stdout:\n{self.out}\nstderr:\n{self.err}"
        assert self.processes() == []
        assert self.sockets == []
        return seconds


@contextmanager
def dora(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, stdout: int | None = None
) -> Iterator[Running]:
    """Start `dora run` with these arguments in `folder`; kill all its processes at the end."""
    token = uuid.uuid4().hex
    runtime = Path(tempfile.mkdtemp(prefix="dora-test-"))  # a socket's path must be short
    bin_dir = Path(sys.executable).parent
    environ = clean_environment(
        bin_dir, {MARKER: token, "XDG_RUNTIME_DIR": str(runtime), **(env or {})}
    )
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [bin_dir / "dora", "run", *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out if stdout is None else stdout,
            stderr=err,
            start_new_session=True,
        )
    running = Running(process, folder, runtime, environ, token)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        for left in running.processes():
            with suppress(ProcessLookupError):  # the process holder is killing them, too
                os.kill(left, signal.SIGKILL)
        shutil.rmtree(runtime)
