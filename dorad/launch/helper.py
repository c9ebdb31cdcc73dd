"""Helpers: processes without privileges that handle what nodes wrote, on behalf of the daemon.

A helper has two descriptors and nothing else: its standard input and output are one socket, by
which whoever asked for it speaks with it; the second one is what it works on, a
connection to the broker or a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Protocol

from dorad.launch.model import Exit, LaunchError
from dorad.launch.spawner import Process
from dorad.launch.stat import start_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.launch.model import Command

LINK = "DORA_LINK_DESCRIPTOR"
"""The variable that tells a helper the number of its second descriptor."""

_KEPT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TZ")
_log = logging.getLogger(__name__)


class HelperHost(Protocol):
    """Starts helpers."""

    parent: int
    """The process whose children they are, and with which they end; 0 if it is systemd."""

    async def start_helper(
        self, command: Command, stdio: int, link: int, *, tag: str, network: bool = False
    ) -> Process:
        """Start a helper. The descriptors stay the caller's to close, right after this.

        `tag` is `<dataflow>/<name>`. The variable LINK is added to the command's environment. Most
        helpers need no `network`.

        Raises:
            LaunchError: it cannot be started.
        """


class LocalHelpers:
    """Helpers as children of this process, which confine themselves (see `confine`)."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self._waiting: set[asyncio.Task[None]] = set()

    async def start_helper(
        self, command: Command, stdio: int, link: int, *, tag: str, network: bool = False
    ) -> Process:
        """Start a helper, as `HelperHost.start_helper`."""
        try:
            child = await asyncio.create_subprocess_exec(
                *command.argv,
                cwd=command.cwd,
                env={**command.env, LINK: str(link)},
                stdin=stdio,
                stdout=stdio,
                pass_fds=(link,),
            )
        except OSError as error:
            raise LaunchError(f"cannot start {command.argv[0]}: {error.strerror}") from error
        _log.debug("helper %s is process %d", tag, child.pid)
        process = Process(child.pid, start_time(child.pid) or 0, _signal)
        waiting = asyncio.create_task(_wait(child, process), name=f"end of helper {tag}")
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        return process


def helper_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what helpers get of the daemon's environment: what Python needs, and no secrets."""
    return {name: environ[name] for name in _KEPT if name in environ}


def _signal(process: Process, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        _log.debug("signal %d: helper %d has ended", number, process.pid)


async def _wait(child: asyncio.subprocess.Process, process: Process) -> None:
    code = await child.wait()
    process.set_exit(Exit(code=code) if code >= 0 else Exit(signal=-code))
