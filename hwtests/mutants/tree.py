"""A copy of the tree with its own virtual environment, in which mutants are tested.

The tests start commands, daemons and nodes as processes: these are the interpreter and the scripts
beside it. So the copy has an environment whose `dorad` is the copy, and whose other packages are
those of this environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import tomllib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from hwtests.mutants import plugin
from hwtests.mutants.calls import Calls

LEFT_OUT = (".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "out")
MARKER = "MUTATION_TEST"
"""Variable in the environment of every process of a test run."""
GRACE_S = 10.0
"""Time to end, for a test run that is interrupted."""
POLL_S = 0.2
DATA_BYTES = 4 << 30
"""Memory of one process: a mutant may grow for ever."""


class Tree:
    """One copy; its modules are changed and restored."""

    def __init__(self, root: Path) -> None:
        """Copy the tree at `root`."""
        # Short: the tests bind sockets below it.
        self.folder = Path(tempfile.mkdtemp(prefix="mt-"))
        self.root = self.folder / "t"
        self._failed = self.folder / "failed"
        self._token = uuid.uuid4().hex
        self._closed = threading.Event()
        self._stamp = int(time.time())
        try:
            shutil.copytree(
                root, self.root, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True
            )
            self._environment()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _environment(self) -> None:
        """Make the environment, and our programs in it."""
        venv = self.root / ".venv"
        command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        packages = sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)})
        ours = [str(self.root), str(self.root / "dorad/compat")]
        text = "\n".join([f"import sys; sys.path[:0] = {ours!r}", sysconfig.get_path("purelib")])
        (Path(packages) / "mutants.pth").write_text(f"{text}\n", encoding="utf-8")
        project = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))
        for name, place in project["project"]["scripts"].items():
            module, _, function = place.partition(":")
            script = venv / "bin" / name
            script.write_text(
                f"#!{venv}/bin/python\nimport sys\n"
                f"from {module} import {function}\nsys.exit({function}())\n",
                encoding="utf-8",
            )
            script.chmod(0o755)

    def write(self, module: str, source: bytes) -> None:
        """Replace a module.

        Compiled modules are recognized by a time in whole seconds, and the size: each version
        of a module gets a time of its own.
        """
        path = self.root / module
        path.write_bytes(source)
        self._stamp += 1
        os.utime(path, (self._stamp, self._stamp))

    def record(self, files: Sequence[str], modules: Sequence[str], timeout: float) -> Calls | None:
        """Run test files, and return what they call of `modules`; None if a test fails.

        Raises:
            InterruptedError: the tree was closed meanwhile.
        """
        recorded = self.folder / "calls"
        if not self._run(files, {"modules": [*modules], "record": str(recorded)}, timeout):
            return None
        return Calls.of(json.loads(recorded.read_text(encoding="utf-8")))

    def passes(self, tests: Sequence[str], timeout: float) -> bool | None:
        """Run tests, named by their ids, until one fails; None if they take too long.

        Raises:
            InterruptedError: the tree was closed meanwhile.
        """
        files = dict.fromkeys(each.partition("::")[0] for each in tests)
        plan = {"tests": [*tests], "failed": str(self._failed)}
        self._failed.write_text("", encoding="utf-8")
        return self._run([*files], plan, timeout)

    @property
    def failed(self) -> str:
        """Return the id of the test that has failed in the last run; empty if none has."""
        return self._failed.read_text(encoding="utf-8")

    def _run(self, files: Sequence[str], plan: dict[str, Any], timeout: float) -> bool | None:
        (self.folder / "plan").write_text(json.dumps(plan), encoding="utf-8")
        command = [str(self.root / ".venv/bin/python"), "-m", "pytest", "-x", "-n0", "-q"]
        # Recorded tests are slow; the whole run has a timeout of its own.
        command += ["-p", plugin.__name__, "-p", "no:cacheprovider", "--timeout", "0"]
        command += ["--basetemp", str(self.folder / "b"), *files]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env={**_clean(), MARKER: self._token, plugin.PLAN: str(self.folder / "plan")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_limited,
            )
        until = time.monotonic() + timeout
        try:
            while process.poll() is None and time.monotonic() < until:
                if self._closed.is_set():
                    raise InterruptedError
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
            code = process.poll()
        finally:
            self._end(process)
        return None if code is None else code == 0

    @property
    def printed(self) -> str:
        """Return what the last run has printed."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a run with its processes, and remove what they have left."""
        if process.poll() is None:
            # The fixtures of its tests clean up.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        pids = {process.pid, *self._killed()}
        process.wait()
        for pid in pids:
            for left in Path("/dev/shm").glob(f"dorad-{pid}-*"):
                left.unlink(missing_ok=True)

    def _killed(self) -> set[int]:
        """Kill every process of a run, and return them."""
        pids: set[int] = set()
        while alive := _marked(f"{MARKER}={self._token}".encode()):
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pids |= alive
            time.sleep(0.01)
        return pids

    def close(self) -> None:
        """Interrupt the run of another thread; `passes` raises InterruptedError there."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._killed()
        shutil.rmtree(self.folder)


def _clean() -> dict[str, str]:
    """Return the environment without what changes how Python or our programs run."""
    return {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("DORA", "PYTHON", "PYTEST", "VIRTUAL_ENV", "EXPLORE"))
    }


def _limited() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    os.nice(5)


def _marked(variable: bytes) -> set[int]:
    """Return the running processes that have this in their environment."""
    pids = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and variable in (entry / "environ").read_bytes().split(b"\0"):
                pids.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile, or not ours
    return pids
