"""Follow a rollout: show its progress, and send its release to robots that wait for files."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from dorad.cli.tables import megabytes, plain, print_lines, rate, table_lines
from dorad.terminal import visible
from dorafleet.cli import rolloutshow
from dorafleet.cli.reporting import LiveRows

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.target import Tcp
    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.sending import Sent
    from dorafleet.release.supply import Supply
    from dorafleet.rollout.messages import RolloutNews, RolloutRobot, RolloutSummary
    from dorafleet.ssh.fanout import Outcome

AGAIN_S = 15.0
"""Seconds from the end of a transfer until the next one to the same robot. A robot sees only after
some seconds that it has everything, and still waits until then."""

RECONNECT_S = 2.0

MAX_ROWS = 15
"""Robots that are shown at once."""

ENDS = frozenset(
    {
        "settled",
        "succeeded",
        "succeeded_partially",
        "awaiting_promotion",
        "reverted",
        "revert_incomplete",
        "refused",
        "aborted",
        "superseded",
        "failed",
    }
)
"""Phases in which nothing more is to be followed."""


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
        """By robot: why it does not take the release; until the coordinator has been told."""

    @property
    def can_send(self) -> bool:
        """Return True if this machine has the files."""
        return self._supply is not None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The transfers that run."""
        return list(self._tasks.values())

    def send(self, robots: list[str], display: Display) -> None:
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
            task = asyncio.create_task(self._send(machine, display), name=f"files {robot}")
            self._tasks[robot] = task

    async def _send(self, machine: Machine, display: Display) -> None:
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
        display.sent(outcome)

    async def close(self) -> None:
        """End all transfers. What has arrived stays on the robots."""
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Display:
    """Shows a rollout: rows on a terminal, else lines, or JSON Lines."""

    def __init__(self, sender: Sender, *, as_json: bool) -> None:
        self._sender = sender
        self._as_json = as_json
        self.rows = LiveRows(self._rows, per_second=2, shown=not as_json)
        self._told = ""
        self._states: dict[str, str] = {}
        self._is_warned = False
        self.summary: RolloutSummary | None = None
        self.robots: dict[str, RolloutRobot] = {}

    def update(self, news: RolloutNews) -> None:
        """Show what has changed."""
        for robot in news.robots:
            self.robots[robot.robot] = robot
            self._robot(robot)
        for summary in news.rollouts:
            self.summary = summary
            self._summary(summary)
        waiting = [each for each in self.robots.values() if each.waiting == "files"]
        if waiting and not self._sender.can_send and not self._is_warned:
            self._is_warned = True
            self.note(f"{len(waiting)} robots wait for files: {self._sender.why}")

    def note(self, text: str) -> None:
        """Print a line for people."""
        self.rows.print(visible(text), err=self._as_json)

    def sent(self, outcome: Outcome[Sent]) -> None:
        """Report the end of a transfer."""
        if self._as_json:
            from dorafleet.cli.releasepush import as_plain

            print_lines([{**as_plain(outcome), "event": "transfer"}])
        elif outcome.error is not None:
            # A refusal becomes the state of the robot, which is printed.
            if outcome.machine.id not in self._sender.refusals:
                self.note(f"{outcome.machine.id}: not sent: {outcome.error}")
        else:
            self.note(f"{outcome.machine.id}: {outcome.result}")

    def _robot(self, robot: RolloutRobot) -> None:
        if self._as_json:
            print_lines([{"event": "robot", **plain(robot)}])
            return
        before = self._states.get(robot.robot, "waiting")
        self._states[robot.robot] = robot.state
        failed = robot.state in rolloutshow.FAILED_STATES
        if robot.state == before or not (failed or robot.state in rolloutshow.DONE_STATES):
            return
        reason = rolloutshow.robot_row(robot, time.time())[-1]
        mark = click.style("✗", fg="red") if failed else click.style("✓", fg="green")
        text = f"{robot.robot}: {robot.state}" + (f": {reason}" if reason else "")
        self.rows.print(f"{mark} {visible(text)}")

    def _summary(self, summary: RolloutSummary) -> None:
        if self._as_json:
            print_lines([{"event": "rollout", **plain(summary)}])
            return
        line = rolloutshow.summary_line(summary)
        if line != self._told:
            self._told = line
            opening = rolloutshow.opening_line(summary)
            self.note(line + (f"; {opening}" if opening else ""))

    def _rows(self) -> list[str]:
        if self.summary is None:
            return ["connecting"]
        lines = [rolloutshow.wave_line(self.summary)]
        moving = [
            each
            for each in rolloutshow.worst_first(self.robots.values())
            if each.state not in (*rolloutshow.DONE_STATES, "waiting")
        ]
        rows = [rolloutshow.robot_row(each, time.time()) for each in moving[:MAX_ROWS]]
        if rows:
            lines += table_lines(rolloutshow.ROBOT_COLUMNS, rows)
        return lines + [
            self._transfer(each) for each in list(self._sender.progress.values())[:MAX_ROWS]
        ]

    def _transfer(self, progress: Progress) -> str:
        share = progress.done / progress.total if progress.total else 0.0
        amounts = f"{megabytes(progress.done)} of {megabytes(progress.total)}"
        return f"{progress.machine}  {progress.state} {share:.0%}  {amounts}  {rate(progress.rate)}"


async def follow(target: Tcp, number: int, sender: Sender, display: Display) -> RolloutSummary:
    """Follow a rollout to its end, over lost connections, and send what robots wait for.

    Raises:
        ControlError: the coordinator refuses, or does not know the rollout.
    """
    from dorad.control.errors import ControlError

    try:
        while True:
            try:
                return await _follow_once(target, number, sender, display)
            except ControlError as error:
                if error.code not in ("unavailable", "deadline") or display.summary is None:
                    raise
                display.note(f"{error.message}; trying again, the rollout goes on without it")
                await _until_back(target)
    finally:
        await sender.close()


async def _follow_once(
    target: Tcp, number: int, sender: Sender, display: Display
) -> RolloutSummary:
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.errors import ControlError
    from dorafleet.coordinator.messages import METHODS
    from dorafleet.rollout.messages import RolloutNews, RolloutWatch

    async with AsyncClient(target, methods=METHODS) as client:
        watch = RolloutWatch(rollout=number, sends=sender.can_send)
        async with client.stream("rollout.watch", watch, RolloutNews) as stream:
            news = asyncio.ensure_future(anext(stream, None))
            try:
                while True:
                    await asyncio.wait(
                        (news, *sender.tasks), timeout=1.0, return_when=asyncio.FIRST_COMPLETED
                    )
                    if news.done():
                        found = news.result()
                        if found is None:
                            raise ControlError("unavailable", "the coordinator ended the stream")
                        display.update(found)
                        news = asyncio.ensure_future(anext(stream, None))
                    if display.summary is not None and has_ended(display.summary):
                        return display.summary
                    waiting = [
                        robot.robot
                        for robot in display.robots.values()
                        if robot.waiting == "files" and robot.reachable
                    ]
                    sender.send(waiting, display)
                    await _report_refusals(client, number, sender, display)
            finally:
                news.cancel()


async def _report_refusals(
    client: AsyncClient, number: int, sender: Sender, display: Display
) -> None:
    """Tell the coordinator which robots do not take the files: it judges them."""
    from dorad.control.errors import ControlError
    from dorafleet.rollout.messages import RolloutRefusal, RolloutSummary

    for robot, reason in list(sender.refusals.items()):
        refusal = RolloutRefusal(rollout=number, robot=robot, reason=reason)
        try:
            await client.call("rollout.refuse", refusal, RolloutSummary)
        except ControlError as error:
            if error.code not in ("refused", "not-found"):
                raise
            display.note(f"{robot}: {reason}; {error.message}")
        del sender.refusals[robot]


def has_ended(summary: RolloutSummary) -> bool:
    """Return True if there is nothing more to be followed, until an operator or a robot comes."""
    done = (*rolloutshow.DONE_STATES, *rolloutshow.FAILED_STATES)
    is_open = any(count for state, count in summary.counts.items() if state not in done)
    # One that has settled without open robots is about to have succeeded.
    return summary.phase in ENDS and (summary.phase != "settled" or is_open)


async def _until_back(target: Tcp) -> None:
    """Wait until the coordinator answers again."""
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.errors import ControlError
    from dorafleet.coordinator.messages import METHODS

    while True:
        await asyncio.sleep(RECONNECT_S)
        try:
            async with AsyncClient(target, methods=METHODS):
                return
        except ControlError as error:
            if error.code not in ("unavailable", "deadline"):
                raise


def run(target: Tcp, number: int, sender: Sender, *, as_json: bool, good: frozenset[str]) -> int:
    """Follow a rollout; return 0 if it ends in one of the `good` phases, 1 if in another one.

    Ctrl-C ends only this command: the rollout goes on.
    """
    with ExitStack() as stack:
        display = Display(sender, as_json=as_json)
        stack.enter_context(display.rows)
        try:
            summary = asyncio.run(follow(target, number, sender, display))
        except KeyboardInterrupt:
            stack.close()
            click.echo(
                f"\nthe rollout goes on without this command; no files are sent from here any more."
                f"\n  go on:  dorafleet rollout follow {number}"
                f"\n  hold:   dorafleet rollout pause {number}"
                f"\n  end it: dorafleet rollout abort {number}",
                err=True,
            )
            raise
    if as_json:
        print_lines([{"event": "end", **plain(summary)}])
    else:
        for line in last_lines(summary):
            click.echo(visible(line))
    return 0 if summary.phase in good else 1


def last_lines(summary: RolloutSummary) -> list[str]:
    """Return how a rollout has ended, and what can be done."""
    number = summary.rollout
    status = f"`dorafleet rollout status {number}` shows each robot"
    match summary.phase:
        case "awaiting_promotion":
            return [f"the canaries are confirmed; go on with `dorafleet rollout promote {number}`"]
        case "settled" if summary.unreachable:
            count = f"{summary.unreachable} of {summary.size} robots"
            return [f"{count} could not be reached; they follow later through the same gates"]
        case "refused":
            return [f"no robot was changed; {status}. Mend the reason, and start it again"]
        case "failed" | "revert_incomplete":
            return [f"{status}; `dorafleet rollout undo {number}` brings back those that have it"]
        case "reverted" | "succeeded_partially":
            return [f"{status} with its evidence"]
    return []


def sender_for(store: Path | None, release: str, cluster: Path) -> Sender:
    """Return what sends a release, given by its id, to the machines of a cluster file.

    Raises:
        ProblemError: the cluster file, or a release in the store, is damaged.
    """
    from dorafleet.cli.release import open_store
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
