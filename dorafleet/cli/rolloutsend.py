"""Send the release of a rollout over SSH to robots that wait for its files."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.sending import Sent
    from dorafleet.release.supply import Supply
    from dorafleet.ssh.fanout import Outcome

AGAIN_S = 15.0
"""Seconds from the end of a transfer until the next one to the same robot. A robot sees only after
some seconds that it has everything, and still waits until then."""


class Sender:
    """Sends a release to robots that wait for its files; or says why it cannot."""

    def __init__(
        self, supply: Supply | None, release: str, machines: dict[str, Machine], why: str
    ) -> None:
        """`supply` is None if nothing is sent from here; `why` says why."""
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
        return list(self._tasks.values())

    def send(self, robots: list[str], on_outcome: Callable[[Outcome[Sent]], object]) -> None:
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

    async def _send(self, machine: Machine, on_outcome: Callable[[Outcome[Sent]], object]) -> None:
        from dorafleet.ssh.errors import Code, SshError
        from dorafleet.ssh.fanout import Outcome

        assert self._supply is not None

        def show(progress: Progress) -> None:
            self.progress[machine.id] = progress

        try:
            outcome = Outcome(machine, await self._supply.send(self._release, machine, show))
        except SshError as error:
            outcome = Outcome(machine, error=error)
            if error.code is Code.REFUSED:
                self.refusals[machine.id] = str(error)
        finally:
            self._ended[machine.id] = time.monotonic()
            self.progress.pop(machine.id, None)
            del self._tasks[machine.id]
        on_outcome(outcome)

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

    found = open_store(store)
    if not cluster.exists():
        return Sender(None, release, {}, f"there is no {cluster} here: give --cluster")
    machines = {machine.id: machine for machine in load(cluster).machines}
    try:
        bundle = found.find(release)
    except BuildError as error:
        if error.code != "not-found":
            raise
        why = f"{error.message}; `dorafleet rollout follow` where it was built sends them"
        return Sender(None, release, machines, why)
    found.check(bundle)
    return Sender(Supply(found), release, machines, "")
