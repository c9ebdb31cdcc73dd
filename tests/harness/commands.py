"""Run our programs in processes that are forked from one that has loaded their modules.

A test run calls thousands of commands and starts hundreds of services. An interpreter that starts
anew, and imports, takes most of the time of each. Tests about starting, and about being signalled
then, start programs themselves.
"""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn, Self

from tests.harness.waiting import DEADLINE_S

ROOT = Path(__file__).parents[2]
MAX_REQUEST = 1 << 17
"""Bytes of a command line with its environment."""

MAINS = {
    "dora": "dorad.cli.main",
    "dorad": "dorad.daemon.main",
    "dorafleet": "dorafleet.cli.main",
    "dorad-agent": "dorad.agent.main",
}
"""The programs, and the modules of their `main` functions."""

SERVICES = ("dorad.daemon.service", "dorad.agent.service", "dorafleet.coordinator.service")
"""Modules that the programs import when they become a service."""

WHEN_NEEDED = (
    "pyroute2",
    "cryptography.hazmat.backends.openssl.backend",
    "dorad.control.sealed",
    "dorafleet.coordinator.storechoice",
)
"""What nearly every service imports later; pyroute2 alone takes each daemon a tenth of a second."""

LATER = {"console"}
"""Modules of commands that take long to import, and are seldom called."""

_server: socket.socket | None = None


@contextlib.contextmanager
def command_server() -> Iterator[None]:
    """Start the process that forks commands, and end it."""
    global _server
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.commands", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        _server = ours
        try:
            yield
        finally:
            _server = None
            ours.close()
            process.wait()


def run_command(
    program: str,
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    given: str = "",
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, like `subprocess.run`; `given` is what it reads from stdin.

    Raises:
        subprocess.TimeoutExpired: it runs for longer than `timeout` seconds, and was killed.
    """
    assert _server is not None, "there is no command server"
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(given.encode())
        files[0].seek(0)
        descriptors = [each.fileno() for each in files]
        process = Forked(program, arguments, descriptors, cwd=cwd, env=env)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            process.send_signal(signal.SIGUSR2)  # it prints where its threads are
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            process.kill()
            process.wait()
            error.add_note("It printed:\n" + "".join(_content(each) for each in files[1:]))
            raise
        out, err = map(_content, files[1:])
    return subprocess.CompletedProcess(process.args, code, out, err)


def succeeds(done: subprocess.CompletedProcess[str]) -> str:
    """Check that a command has succeeded, and return its output."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fails(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    """Check that a command has ended with an exit code, and that its errors have these texts."""
    assert done.returncode == code, done.stderr
    for text in says:
        assert text in done.stderr, done.stderr


class Forked:
    """A process of one of our programs, used like `subprocess.Popen`."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str | Path],
        descriptors: Sequence[int],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        service: bool = False,
    ) -> None:
        """`descriptors` become its stdin, stdout and stderr; a service gets a session."""
        assert _server is not None, "there is no command server"
        self.args = [program, *map(str, arguments)]
        self.returncode: int | None = None
        request = {
            "program": program,
            "words": self.args,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "service": service,
        }
        self._parent, theirs = socket.socketpair()
        with theirs:
            sent = [*descriptors, theirs.fileno()]
            socket.send_fds(_server, [json.dumps(request).encode()], sent)
        self.pid = int(self._answer())

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than `timeout` seconds.
        """
        if self.returncode is None:
            answer = select.poll()
            answer.register(self._parent, select.POLLIN)
            if not answer.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._answer())
            # Until now its process id could not be used again.
            self._parent.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _answer(self) -> bytes:
        """Return the next line of the process's parent."""
        line = b""
        while not line.endswith(b"\n"):
            piece = self._parent.recv(1)
            assert piece, f"the command server has failed at: {self.args}"
            line += piece
        return line


class Service(Forked):
    """A program in its own session, whose stdout and stderr go to a file."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Append to `log`. A pipe that is not read would stop the service once it is full."""
        self._log = log
        with Path(os.devnull).open() as nothing, log.open("ab") as out:
            self._began = out.tell()
            descriptors = [nothing.fileno(), out.fileno(), out.fileno()]
            super().__init__(program, arguments, descriptors, cwd=cwd, env=env, service=True)

    @property
    def printed(self) -> str:
        """What it has printed so far."""
        with self._log.open("rb") as log:
            log.seek(self._began)
            return log.read().decode(errors="replace")

    def wait_until_printed(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed what fits a pattern, and return the match."""
        end = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.printed)):
            ended = self.poll() is not None and not re.search(pattern, self.printed)
            assert not ended, f"it ended: {self.printed}"
            assert time.monotonic() < end, f"`{pattern}` was not printed: {self.printed}"
            time.sleep(0.005)
        return found


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").replace("\r\n", "\n")


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request, until no test can send another."""
    # Tests of functions call no command: they do not pay for the imports.
    if not requests.recv(1, socket.MSG_PEEK):
        return
    # The package of a robot has no fleet manager.
    here = ("dorad", "dorafleet") if importlib.util.find_spec("dorafleet") else ("dorad",)
    for package in (f"{name}.cli" for name in here):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name not in LATER and module.name != "__main__":
                importlib.import_module(f"{package}.{module.name}")
    for name in (*MAINS.values(), *SERVICES, *WHEN_NEEDED):
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    gc.freeze()
    # Processes that keep a command are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        content, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
        if not content:
            return
        if os.fork() == 0:
            requests.close()
            _keep(json.loads(content), descriptors)
        for each in descriptors:
            os.close(each)


def _keep(request: dict, descriptors: list[int]) -> NoReturn:
    """Run a command in a child, and answer with its process id and then its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *files, answers = descriptors
    child = os.fork()
    if child == 0:
        os.close(answers)
        _become(request, files)
    os.write(answers, b"%d\n" % child)
    for each in files:
        os.close(each)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with contextlib.suppress(OSError):  # the test has stopped reading
        os.write(answers, b"%d\n" % code)
        # The child is reaped after the test knows: until then no other process can have its id.
        os.read(answers, 1)
    os._exit(0)


def _become(request: dict, files: list[int]) -> NoReturn:
    """Run a command in this process."""
    code = 1
    try:
        os.chdir(request["cwd"])
        # Which data plane runs is chosen when its modules are imported.
        other_plane = request["env"].get("DORAD_NATIVE") != os.environ.get("DORAD_NATIVE")
        os.environ.clear()
        os.environ.update(request["env"])
        for number, each in enumerate(files):
            os.dup2(each, number)
        for each in set(files):
            os.close(each)
        if request["service"]:
            os.setsid()
        module, words = MAINS[request["program"]], request["words"]
        if other_plane:
            start = f"import sys, {module} as program; sys.argv[0] = {words[0]!r}; program.main()"
            os.execv(sys.executable, [sys.executable, "-c", start, *words[1:]])
        if not request["service"]:
            faulthandler.register(signal.SIGUSR2, file=2)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.argv = words
        importlib.import_module(module).main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:  # noqa: BLE001 - as the interpreter shows it
        traceback.print_exc()
    finally:
        if request["service"]:
            # As the interpreter ends: a thread that does not end is to be noticed.
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
