"""Send a release to many robots at once over SSH. A robot that fails or hangs delays no other."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dorad.release import frames
from dorad.release.errors import ReleaseError
from dorafleet.release.errors import BuildError
from dorafleet.release.pieces import Pieces
from dorafleet.release.upload import Line, Sent, Session, SshLine, Tracker
from dorafleet.robot.commands import USER_ID, agent_release, as_root
from dorafleet.robot.facts import user_id
from dorafleet.ssh.connection import CONNECT_TIMEOUT_S, connect
from dorafleet.ssh.errors import Code, SshError
from dorafleet.ssh.fanout import MachineOutcome, run_on_each

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.store import Bundle, Store

    OpenLine = Callable[[Machine], AbstractAsyncContextManager[Line]]
    """Opens a line to a machine. Raises SshError."""

PARALLEL = 50
"""Hosts at once."""
RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0)
"""Before each attempt after one in which nothing arrived; then the transfer has failed."""
MAX_ATTEMPTS = 1000
"""A robot that takes a little each time does not keep the command from ending."""
_RETRIED = (Code.LOST, Code.TIMEOUT, Code.UNREACHABLE)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to send."""

    parallel: int = PARALLEL
    accept_new: bool = False
    """Trust unknown host keys."""
    patches: bool = True
    connect_timeout: float = CONNECT_TIMEOUT_S
    delays: Sequence[float] = RETRY_DELAYS_S
    """Seconds before each attempt after one in which nothing arrived."""


async def send(
    machines: Sequence[Machine],
    bundle: Bundle,
    store: Store,
    on_progress: Callable[[Progress], object] = lambda _: None,
    on_outcome: Callable[[MachineOutcome[Sent]], object] = lambda _: None,
    options: TransferOptions = TransferOptions(),
    pieces: Pieces | None = None,
    lines: OpenLine | None = None,
) -> list[MachineOutcome[Sent]]:
    """Send what each robot lacks of a release; return the outcomes in the order of `machines`.

    A lost connection is made again and continues where it was, as long as something arrives.
    Cancellation ends all transfers; what has arrived stays on the robots. Calls that share `pieces`
    prepare each of them once. `lines` opens another way to a machine than SSH.

    Raises:
        BuildError: the store does not have the whole release.
    """
    if lacking := store.lacking(bundle.manifest):
        message = f"{len(lacking)} files of release {bundle} are not in {store.folder}"
        raise BuildError(message, "copy that folder from where it was built, or build it again")
    with nullcontext(pieces) if pieces is not None else Pieces(store) as prepared:

        async def work(machine: Machine) -> Sent:
            tracker = Tracker(machine.id, on_progress)
            try:
                result = await _Transfer(
                    machine, bundle, store, prepared, tracker, options, lines
                ).run()
            except (SshError, BuildError) as error:
                tracker.set(state="failed", rate=0.0, left=None, message=str(error))
                if isinstance(error, BuildError):
                    raise SshError(Code.FAILED, error.message, error.hint) from error
                raise
            tracker.set(state="done", rate=0.0, left=0.0, message="")
            return result

        return await run_on_each(machines, work, parallel=options.parallel, on_outcome=on_outcome)


class _Transfer:
    """The transfer to one robot, with all its attempts."""

    def __init__(
        self,
        machine: Machine,
        bundle: Bundle,
        store: Store,
        pieces: Pieces,
        tracker: Tracker,
        options: TransferOptions,
        lines: OpenLine | None,
    ) -> None:
        self._lines = lines or self._over_ssh
        self._machine = machine
        self._bundle = bundle
        self._store = store
        self._pieces = pieces
        self._tracker = tracker
        self._options = options
        self._patches = options.patches
        self._protocol = frames.PROTOCOL

    async def run(self) -> Sent:
        """Return when the robot has everything. Raises SshError."""
        started = time.monotonic()
        idle = 0
        for _ in range(MAX_ATTEMPTS):
            before = self._tracker.progress.sent, self._tracker.least
            try:
                result = await self._attempt()
            except SshError as error:
                after = self._tracker.progress.sent, self._tracker.least
                idle = 0 if after != before else idle + 1
                never = self._tracker.least is None and error.code is Code.UNREACHABLE
                if error.code not in _RETRIED or never or idle > len(self._options.delays):
                    raise
                reason = error.message
            except ReleaseError as error:
                if error.code == "protocol" and self._protocol != frames.FORMER_PROTOCOL:
                    self._protocol = frames.FORMER_PROTOCOL  # the robot may be older
                elif self._patches:
                    self._patches = False  # what is left of them goes as it is the next time
                else:
                    raise SshError(Code.FAILED, error.message, error.hint) from error
                reason = error.message
            else:
                seconds = time.monotonic() - started
                return replace(result, sent=self._tracker.progress.sent, seconds=seconds)
            _log.debug("%s: again, %d without progress: %s", self._machine.id, idle, reason)
            self._tracker.set(state="retrying", rate=0.0, left=None, message=reason)
            delays = self._options.delays
            await asyncio.sleep(delays[max(0, idle - 1)] if delays else 0.0)
        message = f"the connection was lost {MAX_ATTEMPTS} times"
        raise SshError(Code.LOST, message, "send it again: what has arrived stays")

    async def _attempt(self) -> Sent:
        self._tracker.set(state="connecting")
        async with self._lines(self._machine) as line:
            session = Session(line, self._bundle, self._store, self._pieces, self._tracker)
            return await session.run(patches=self._patches, protocol=self._protocol)

    @asynccontextmanager
    async def _over_ssh(self, machine: Machine) -> AsyncIterator[Line]:
        options = self._options
        async with connect(
            machine, accept_new=options.accept_new, timeout=options.connect_timeout
        ) as robot:
            uid = user_id(await robot.check(USER_ID))
            self._tracker.set(state="comparing")
            async with robot.talk(as_root(agent_release("receive"), uid)) as process:
                yield SshLine(process)
