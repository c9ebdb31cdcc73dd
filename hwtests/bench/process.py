"""Run one measured program with a deadline; kill all its processes if it misses it."""

import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

TAIL = 3_000
"""Number of characters of a failed program's output that an error shows."""


class MeasurementError(Exception):
    """A measurement failed; the text names it and the reason."""


class Ended(NamedTuple):
    """A program that has ended well."""

    output: str
    seconds: float
    """From start to exit."""
    cpu_s: float
    """Of all its processes, as far as it has waited for them."""


def environment(venv: Path) -> dict[str, str]:
    """Return this process's environment with one venv active and no settings of dora.

    `DORAD_NATIVE` stays: it chooses between the two speeds of the data plane.
    """
    dropped = ("DORA", "BENCH", "PYTHON")
    kept = {k: v for k, v in os.environ.items() if k == "DORAD_NATIVE" or not k.startswith(dropped)}
    path = f"{venv / 'bin'}:{kept.get('PATH', os.defpath)}"
    return kept | {"VIRTUAL_ENV": str(venv), "PATH": path}


def run(argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path, deadline_s: float) -> Ended:
    """Run a program to its end.

    Raises:
        MeasurementError: it exits with another code than 0 or misses its deadline.
    """
    command = " ".join(str(word) for word in argv)
    # A file, not a pipe: a process that still holds the end of a pipe would delay the measurement.
    with tempfile.TemporaryFile() as output:
        begin, cpu = time.perf_counter(), _cpu_s()
        with subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=cwd,
            start_new_session=True,
        ) as process:
            try:
                in_time = _ends_within(process.pid, deadline_s)
                taken = time.perf_counter() - begin
            except BaseException:
                _kill_tree(process.pid)
                raise
            if not in_time:
                _kill_tree(process.pid)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if not in_time:
        raise MeasurementError(f"{command}: not done after {deadline_s:g} s\n{text[-TAIL:]}")
    if process.returncode:
        raise MeasurementError(f"{command}: exit code {process.returncode}\n{text[-TAIL:]}")
    return Ended(text, taken, _cpu_s() - cpu)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for a child without polling, which would round its time up."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1e3))
    finally:
        os.close(descriptor)


def _kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
