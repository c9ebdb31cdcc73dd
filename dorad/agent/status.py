"""The state of the agent in a file, for `dorad-agent status`."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dorad.agent.folder import SYSTEM_DIR
from dorad.agent.model import AgentStatus
from dorad.atomicfile import atomic_file
from dorad.control.errors import ControlError
from dorad.procinfo import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dorad.bell import Bell

SYSTEM_RUNTIME_DIR = Path("/run/dorad-agent")
MIN_INTERVAL_S = 0.2
"""Minimum time between two writes."""

_log = logging.getLogger(__name__)


def runtime_folder(folder: Path) -> Path:
    """Return the folder for files of this agent that a reboot may remove."""
    return SYSTEM_RUNTIME_DIR if folder == SYSTEM_DIR else folder


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of the only agent with this folder.

    Raises:
        ControlError: another one runs.
    """
    number = os.open(folder / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ControlError("exists", f"a dorad-agent already runs in {folder}") from None
        yield
    finally:
        os.close(number)


def read_status(folder: Path) -> AgentStatus:
    """Return the state of the running agent.

    Raises:
        ControlError: none runs, or its state cannot be read.
    """
    path = runtime_folder(folder) / "status.json"
    try:
        status = msgspec.json.decode(path.read_bytes(), type=AgentStatus)
    except FileNotFoundError:
        status = None
    except (OSError, ValueError, RecursionError) as error:
        raise ControlError("refused", f"{path} cannot be read: {error}") from None
    if status is None or not is_alive(status.pid, status.ticks):
        raise ControlError(
            "unavailable",
            f"no dorad-agent runs in {folder}",
            "start it with `systemctl enable --now dorad-agent`, or see its journal",
        )
    return status


async def keep_status(folder: Path, changed: Bell, status: Callable[[], AgentStatus]) -> None:
    """Write the status whenever it has changed, until cancelled."""
    path = runtime_folder(folder) / "status.json"
    written = b""
    while True:
        content = msgspec.json.encode(status())
        if content != written:
            try:
                # Not durable: after a power cut it is written again.
                with atomic_file(path, durable=False) as file:
                    file.write(content)
                    os.fchmod(file.fileno(), 0o644)
                written = content
            except OSError as error:
                _log.warning("%s cannot be written: %s", path, error)
        await changed.wait()
        await asyncio.sleep(MIN_INTERVAL_S)
