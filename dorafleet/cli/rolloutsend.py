"""Send the release of a rollout over SSH to robots that wait for its files."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dorad.phrases import first_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dorad.control.target import Targets
    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.store import Bundle, Store
    from dorafleet.release.supply import Supply
    from dorafleet.release.upload import Sent
    from dorafleet.ssh.fanout import MachineOutcome

AGAIN_S = 15.0
"""Seconds from the end of a transfer until the next one to the same robot. A robot sees only after
some seconds that it has everything, and still waits until then."""
UPLOAD_AGAIN_S = 60.0
"""Seconds from the end of an upload to the coordinator until the next one, if it still lacks files.
"""
MAX_NAMED = 3

NO_SSH = frozenset({"unreachable", "host_key_unknown", "denied", "config"})
"""Errors with which SSH has reached no robot. A key that has changed is not among them: somebody
should look at that."""


class Sender:
    """Sends a release to robots that wait for its files; or says why it cannot."""

    def __init__(
        self,
        supply: Supply | None,
        release: str,
        machines: dict[str, Machine],
        why: str,
        files: tuple[Bundle, Store] | None = None,
    ) -> None:
        """`supply` is None if nothing is sent from here; `why` says why.

        `files` are the release, which the coordinator gets if SSH does not reach a robot.
        """
        self._files = files
        self.beyond: set[str] = set()
        """Robots that SSH does not reach from here."""
        self._uploading: asyncio.Task[None] | None = None
        self._upload_due = 0.0
        self._supply = supply
        self._release = release
        self._machines = machines
        self.why = why
        self.progress: dict[str, Progress] = {}
        """By robot: the transfers that run."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, float] = {}
        """By robot: when its last transfer has ended."""
        self.refusals: dict[str, str] = {}
        """By robot: why it does not take the release; until the coordinator knows."""

    @property
    def can_send(self) -> bool:
        """Whether this machine has the files."""
        return self._supply is not None

    def unknown(self, robots: list[str]) -> list[str]:
        """Return the robots that are not in the cluster file."""
        return [robot for robot in robots if robot not in self._machines]

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The transfers that run."""
        uploading = [] if self._uploading is None else [self._uploading]
        return [*self._tasks.values(), *uploading]

    def send(self, robots: list[str], on_outcome: Callable[[MachineOutcome[Sent]], object]) -> None:
        """Begin transfers to robots that have none, at most 50 at a time."""
        from dorafleet.release.transfer import PARALLEL

        if self._supply is None:
            return
        now = time.monotonic()
        for robot in robots:
            machine = self._machines.get(robot)
            late = now - self._ended.get(robot, float("-inf")) >= AGAIN_S
            if machine is None or robot in self._tasks or not late:
                continue
            if len(self._tasks) >= PARALLEL:
                return
            task = asyncio.create_task(self._send(machine, on_outcome), name=f"files {robot}")
            self._tasks[robot] = task

    async def _send(
        self, machine: Machine, on_outcome: Callable[[MachineOutcome[Sent]], object]
    ) -> None:
        from dorafleet.ssh.errors import Code, SshError
        from dorafleet.ssh.fanout import MachineOutcome

        assert self._supply is not None

        def show(progress: Progress) -> None:
            self.progress[machine.id] = progress

        try:
            outcome = MachineOutcome(machine, await self._supply.send(self._release, machine, show))
        except SshError as error:
            outcome = MachineOutcome(machine, error=error)
            if error.code is Code.REFUSED:
                self.refusals[machine.id] = str(error)
            elif error.code in NO_SSH:
                self.beyond.add(machine.id)
        else:
            self.beyond.discard(machine.id)
        finally:
            self._ended[machine.id] = time.monotonic()
            self.progress.pop(machine.id, None)
            del self._tasks[machine.id]
        on_outcome(outcome)

    def upload(self, targets: Targets, report: Callable[[str], object]) -> None:
        """Begin to leave the release with the coordinator, once SSH does not reach a robot."""
        if not self.beyond or self._files is None or self._uploading is not None:
            return
        if time.monotonic() >= self._upload_due:
            work = self._upload(targets, report, *self._files)
            self._uploading = asyncio.create_task(work, name="files coordinator")

    async def _upload(
        self, targets: Targets, report: Callable[[str], object], bundle: Bundle, store: Store
    ) -> None:
        from dorad.problems import ProblemError
        from dorafleet.cli.releaseupload import COORDINATOR, can_send, send_files

        def show(progress: Progress) -> None:
            self.progress[COORDINATOR] = progress

        try:
            if await can_send(targets, bundle):
                return
            named = first_of(sorted(self.beyond), MAX_NAMED)
            report(f"SSH does not reach {named} from here: the coordinator gets the files for it")
            outcome = await send_files(targets, bundle, store, show)
            report(f"coordinator: {outcome.error or outcome.result}")
        except ProblemError as error:
            report(f"the coordinator does not get the files: {error}")
        finally:
            self.progress.pop(COORDINATOR, None)
            self._upload_due = time.monotonic() + UPLOAD_AGAIN_S
            self._uploading = None

    async def close(self) -> None:
        """End all transfers. What has arrived stays on the robots."""
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sender_for(store: Path | None, release: str, cluster: Path) -> Sender:
    """Return what sends a release, given by its id, to the machines of a cluster file.

    Raises:
        ProblemError: the cluster file, or a release in the store, is damaged.
    """
    from dorafleet.cli.releaseoptions import open_store
    from dorafleet.inventory.load import load
    from dorafleet.release.errors import BuildError
    from dorafleet.release.supply import Supply

    releases = open_store(store)
    if not cluster.exists():
        return Sender(None, release, {}, f"there is no {cluster} here: give --cluster")
    machines = {machine.id: machine for machine in load(cluster).machines}
    try:
        bundle = releases.find(release)
    except BuildError as error:
        if error.code != "not-found":
            raise
        why = f"{error.message}; `dorafleet rollout follow` where it was built sends them"
        return Sender(None, release, machines, why)
    releases.check(bundle)
    return Sender(Supply(releases), release, machines, "", (bundle, releases))
