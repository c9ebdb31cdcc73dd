"""Helpers: processes without privileges that parse untrusted data for the daemon.

A helper gets only two descriptors. Its standard input and output are one socket, connected to the
code that started it. The second descriptor is its subject: a connection to the broker, or a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Protocol

from dorad.launch.model import Command, Exit, LaunchError
from dorad.launch.spawner import Process
from dorad.procinfo import start_time

LINK = "DORA_LINK_DESCRIPTOR"
"""The variable that holds the number of a helper's second descriptor."""

_KEPT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TZ")
_log = logging.getLogger(__name__)


class HelperHost(Protocol):
    """Starts helpers."""

    parent: int
    """Pid of the helpers' parent, whose end ends them; 0 means systemd."""

    async def start_helper(
        self, command: Command, stdio: int, link: int, *, tag: str, network: bool = False
    ) -> Process:
        """Start a helper. The caller closes its descriptors right after this returns.

        `tag` is `<dataflow>/<name>`. The variable LINK is added to the command's environment. Most
        helpers need no `network`.

        Raises:
            LaunchError: it cannot be started.
        """


class LocalHelpers:
    """Starts helpers as children of this process; they confine themselves (see `confine`)."""

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
    """Return the part of the daemon's environment that Python needs; it has no secrets."""
    return {name: environ[name] for name in _KEPT if name in environ}


def _signal(process: Process, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        _log.debug("signal %d: helper %d has ended", number, process.pid)


async def _wait(child: asyncio.subprocess.Process, process: Process) -> None:
    code = await child.wait()
    process.set_exit(Exit(code=code) if code >= 0 else Exit(signal=-code))
