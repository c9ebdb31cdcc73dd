"""Run our commands in processes that are forked from one that has loaded their modules.

A test run calls thousands of commands. An interpreter that starts anew, and imports, takes most of
the time of each. Tests about starting, and about being signalled, start programs themselves.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
MAX_REQUEST = 1 << 17
"""Bytes of a command line with its environment."""

MAINS = {
    "dora": "dorad.cli.main",
    "dorafleet": "dorafleet.cli.main",
    "dorad-agent": "dorad.agent.main",
}
"""The programs, and the modules of their `main` functions."""

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
    words = [program, *map(str, arguments)]
    request = {
        "program": program,
        "words": words,
        "cwd": str(cwd or Path.cwd()),
        "env": dict(os.environ if env is None else env),
    }
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(given.encode())
        files[0].seek(0)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            sent = [each.fileno() for each in (*files, theirs)]
            socket.send_fds(_server, [json.dumps(request).encode()], sent)
        pid = int(_answer(ours, words, None))
        try:
            code = int(_answer(ours, words, timeout))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise
        for each in files:
            each.seek(0)
        out, err = (each.read().decode().replace("\r\n", "\n") for each in files[1:])
    return subprocess.CompletedProcess(words, code, out, err)


def _answer(connection: socket.socket, words: list[str], timeout: float | None) -> bytes:
    """Return the next line of the forked process's keeper."""
    line = b""
    connection.settimeout(timeout)
    try:
        while not line.endswith(b"\n"):
            piece = connection.recv(1)
            assert piece, f"the command server has failed at: {words}"
            line += piece
    except TimeoutError:
        raise subprocess.TimeoutExpired(words, timeout or 0.0) from None
    return line


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request, until no test can send one any more."""
    for package in ("dorad.cli", "dorafleet.cli"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name not in LATER and module.name != "__main__":
                importlib.import_module(f"{package}.{module.name}")
    for name in MAINS.values():
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
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):  # the test has timed out
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict, files: list[int]) -> NoReturn:
    """Run a command in this process."""
    code = 1
    try:
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        for number, each in enumerate(files):
            os.dup2(each, number)
            os.close(each)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.argv = request["words"]
        importlib.import_module(MAINS[request["program"]]).main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:  # noqa: BLE001 - as the interpreter shows it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
