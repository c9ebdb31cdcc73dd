"""What each robot can run, as it said when it connected last: also to an earlier coordinator.

Releases are built for robots that are off, too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

import msgspec

from dorad.control.messages import Struct
from dorad.problems import ProblemError
from dorafleet.coordinator.stored import read

if TYPE_CHECKING:
    from dorad.control.messages.agent import Attached
    from dorafleet.coordinator.writing import Writer
    from dorafleet.store.model import Store

KEY = "robot-machines"
EVERY_S = 5.0
"""Time between two writes."""

_log = logging.getLogger(__name__)


class KnownMachine(Struct):
    """What a robot has said of itself; texts are empty if it did not."""

    arch: str = ""
    python: str = ""
    glibc: str = ""


class KnownMachines:
    """The machines of all robots that have ever connected."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._machines: dict[str, KnownMachine] = {}
        self._changed = False

    async def load(self) -> None:
        """Take over those that earlier coordinators knew. Raises StoreError."""
        stored = await read(self._store, KEY, dict[str, KnownMachine])
        self._machines = next((machines for entry, machines in stored if entry.key == KEY), {})

    def get(self, robot: str) -> KnownMachine:
        """Return what is known of a robot."""
        return self._machines.get(robot, KnownMachine())

    def learn(self, robot: str, attached: Attached) -> None:
        """Remember what a robot says when it connects."""
        machine = KnownMachine(arch=attached.arch, python=attached.python, glibc=attached.glibc)
        if self._machines.get(robot) != machine:
            _log.debug("robot `%s` is a machine of %s", robot, machine)
            self._machines[robot] = machine
            self._changed = True

    async def run(self) -> NoReturn:
        """Store what has changed until cancelled; what cannot be stored is tried again."""
        failed = False
        while True:
            await asyncio.sleep(EVERY_S)
            if not self._changed:
                continue
            self._changed = False
            try:
                await self._writer.keep({KEY: msgspec.json.encode(self._machines)})
                failed = False
            except ProblemError as error:
                self._changed = True
                if not failed:
                    _log.warning("what robots can run is not stored: %s", error)
                failed = True
