"""Run one command to its end, under a deadline, and leave no process behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .commands import Service

MARKER = "DORAD_TEST_COMMAND"
"""Names the command that a process descends from, in the environment of each."""

SETTLE_S = 20.0
"""Seconds that descendants may outlive their command; a fraction of one on a quiet machine."""


def open_descriptors() -> int:
    """Return the number of this process's open descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


def readable_by_others(path: Path | str) -> bool:
    """Return True if a user without any rights can read a file; needs root."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run([*user, "test", "-r", path], check=False).returncode == 0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    seconds: float
    output: str
    folder: Path

    def expect(self, code: int) -> "Outcome":
        """Return self, or raise AssertionError with the whole output if the exit code differs."""
        assert self.code == code, f"exit {self.code}, expected {code}; it printed:\n{self.output}"
        return self

    def lines_about(self, node: str, words: Iterable[str]) -> list[str]:
        """Return the output's lines that hold the node's id and one of the words."""
        return [
            line
            for line in self.output.splitlines()
            if node in line and any(word in line for word in words)
        ]


def run(argv: list[str | Path], *, cwd: Path, env: Mapping[str, str], deadline: float) -> Outcome:
    """Run argv in cwd with exactly this environment; stdout and stderr come back as one text.

    Raises AssertionError when it takes longer than `deadline` seconds, or when a process that
    it started still runs a few seconds after its end. Either way they are killed.
    """
    token = uuid.uuid4().hex
    log = cwd / f".output-{token}"
    started = time.monotonic()
    process = _start(argv, cwd, {**env, MARKER: token}, log)
    try:
        code: int | None = process.wait(deadline)
    except subprocess.TimeoutExpired:
        code = None
    seconds = time.monotonic() - started
    left = _survivors(token, wait=0.0 if code is None else SETTLE_S)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if code is None:
        process.kill()
        process.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    command = " ".join(str(word) for word in argv)
    assert code is not None, f"`{command}` did not end within {deadline} s; it printed:\n{text}"
    assert not left, f"`{command}` left processes behind: {left}; it printed:\n{text}"
    return Outcome(code, seconds, text, cwd)


def _start(
    argv: list[str | Path], cwd: Path, env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes] | Service:
    """Start a command in its own session; the `dora` of this venv without its imports."""
    if argv[0] == Path(sys.executable).parent / "dora":
        return Service("dora", argv[1:], log, cwd=cwd, env=env)
    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _survivors(token: str, *, wait: float) -> list[int]:
    """Return processes that carry the token, once none is left or `wait` seconds have passed."""
    until = time.monotonic() + wait
    while True:
        found = marked(MARKER, token)
        if not found or time.monotonic() >= until:
            return found
        time.sleep(0.02)


def marked(variable: str, value: str, *, argument: str = "") -> list[int]:
    """Return the processes with a variable in their environment, or a text in their command line.

    None has ended: what is left of it has neither. Reads files itself, since hundreds of tests
    look at all processes of the machine; psutil takes ten times as long.
    """
    variable_bytes, argument_bytes = f"{variable}={value}\0".encode(), argument.encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        try:
            if variable_bytes in _read(name, "environ") or (
                argument and argument_bytes in _read(name, "cmdline")
            ):
                found.append(int(name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile, or not ours
    return sorted(found)


def _read(pid: str, file: str) -> bytes:
    with open(f"/proc/{pid}/{file}", "rb", buffering=0) as opened:  # noqa: PTH123
        return opened.readall()
