"""Show a followed rollout: rows on a terminal, lines, or JSON Lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import megabytes, plain, print_lines, rate, table_lines
from dorad.terminal import visible
from dorafleet.cli import rolloutshow
from dorafleet.cli.progress import LiveRows
from dorafleet.rollout.model import BACK, FAILURES

if TYPE_CHECKING:
    from dorafleet.cli.rolloutsend import Sender
    from dorafleet.release.progress import Progress
    from dorafleet.release.upload import Sent
    from dorafleet.rollout.messages import RolloutRobot, RolloutSummary, RolloutUpdate
    from dorafleet.ssh.fanout import MachineOutcome

MAX_ROWS = 15
"""Robots that are shown at once."""


class Display:
    """Shows a rollout: rows on a terminal, else lines, or JSON Lines."""

    def __init__(self, sender: Sender, *, as_json: bool) -> None:
        self._sender = sender
        self._as_json = as_json
        self.rows = LiveRows(self._rows, per_second=2, shown=not as_json)
        self._told = ""
        self._states: dict[str, str] = {}
        self._sent: dict[str, str] = {}
        """By robot: how its last transfer has ended."""
        self._is_warned = False
        self.summary: RolloutSummary | None = None
        self.robots: dict[str, RolloutRobot] = {}

    def update(self, changed: RolloutUpdate) -> None:
        """Show what has changed."""
        for summary in changed.rollouts:
            self.summary = summary
        for robot in changed.robots:
            self.robots[robot.robot] = robot
            self._robot(robot)
        for summary in changed.rollouts:
            self._summary(summary)
        waiting = [each.robot for each in self.robots.values() if each.waiting == "files"]
        lost = self._sender.unknown(waiting) if self._sender.can_send else waiting
        if lost and not self._is_warned:
            self._is_warned = True
            count = "1 robot waits" if len(lost) == 1 else f"{len(lost)} robots wait"
            why = self._sender.why or f"{', '.join(lost[:3])}: not in the cluster file"
            self.report(f"{count} for files: {why}")

    def report(self, text: str) -> None:
        """Print a line for people."""
        self.rows.print(visible(text), err=self._as_json)

    def sent(self, outcome: MachineOutcome[Sent]) -> None:
        """Report the end of a transfer; once, if the next ones to the robot end in the same way."""
        robot, error = outcome.machine.id, outcome.error
        text = f"{outcome.result}" if error is None else f"not sent: {error}"
        if self._sent.get(robot) == text:
            return
        self._sent[robot] = text
        if self._as_json:
            from dorafleet.cli.releasepush import as_plain

            print_lines([{**as_plain(outcome), "event": "transfer"}])
        elif robot not in self._sender.refusals:
            # A refusal becomes the state of the robot, which is printed.
            self.report(f"{robot}: {text}")

    def _robot(self, robot: RolloutRobot) -> None:
        if self._as_json:
            print_lines([{"event": "robot", **plain(robot)}])
            return
        before = self._states.get(robot.robot, "waiting")
        self._states[robot.robot] = robot.state
        failed = robot.state in FAILURES
        if robot.state == "confirmed" and self.summary is not None and self.summary.phase in BACK:
            return  # it has still to go back
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
            self.report(line + (f"; {opening}" if opening else ""))

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
