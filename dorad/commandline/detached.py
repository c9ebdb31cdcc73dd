"""Start a service of the user in the background, and wait until it answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

POLL_S = 0.02
END_S = 10.0
"""Seconds that a service has to end at Ctrl-C before it is left to itself."""
MAX_LOG_BYTES = 1 << 20
"""Size from which the log is rotated at the next start."""

T = TypeVar("T")


def start_detached(
    name: str,
    words: Sequence[str],
    log: Path,
    ask: Callable[[], T | None],
    *,
    timeout: float,
    env: Mapping[str, str] = MappingProxyType({}),
) -> T:
    """Run a Python module, `words`, that outlives this process; return its first answer.

    `ask` returns the answer, or None until there is one. The module writes to `log`; `env` is added
    to its environment; `name` is used in messages. Ctrl-C ends the module.

    Raises:
        click.ClickException: it exits at once, or does not answer within `timeout` seconds.
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        begin = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(env),
        )
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                output = log.read_bytes()[begin:].decode(errors="replace").strip()
                raise click.ClickException(f"{name} exited at once:\n{output}")
            answer = ask()
            if answer is not None:
                return answer
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        raise
    raise click.ClickException(
        f"{name} (pid {process.pid}) does not answer {timeout:g} s after its start; see {log}"
    )
