"""`dorafleet release push`: send a release to machines, and show how far each is."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.tables import age, print_lines, rate
from dorad.terminal import visible
from dorafleet.cli.arguments import OverSsh, json_option, over_ssh
from dorafleet.cli.progress import LiveRows
from dorafleet.cli.releaseoptions import open_store, release_argument, store_option

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.release.manifest import Target
    from dorafleet.inventory.model import Cluster, Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.upload import Sent
    from dorafleet.ssh.fanout import MachineOutcome

_log = logging.getLogger(__name__)

EPILOG = """\b
Examples:
  dorafleet release push arm cluster.yml
  dorafleet release push arm@4 cluster.yml --only arm1,arm2
  dorafleet release push 3fa9c1 cluster.yml --json | jq -c 'select(.event == "result")'
\b
A machine gets only the files that it lacks, and only if it trusts the signing key; see `dorafleet
release trust`. Changed files are sent as patches if both sides have the previous release. An
interrupted transfer continues where it stopped, also with another push. Running dataflows do not
change.
Exit code 0: all machines have the release. 1: some do not.
"""

JSON_INTERVAL_S = 1.0
"""Seconds between two lines about a host."""
MAX_ROWS = 20
"""Hosts that are shown at once."""


@click.command(epilog=EPILOG)
@release_argument("release")
@over_ssh(parallel=50)
@click.option("--no-patches", is_flag=True, help="Send changed files whole.")
@store_option
@json_option
def push(
    over: OverSsh, *, release: str, no_patches: bool, store: Path | None, as_json: bool
) -> int:
    """Send RELEASE to the machines in FILE, without running it."""
    from dorafleet.cli.progress import check_outcomes
    from dorafleet.release.transfer import TransferOptions, send

    releases = open_store(store)
    bundle = releases.find(release)
    options = TransferOptions(over.parallel, over.accept_new, patches=not no_patches)
    display = Display(over.ids, as_json=as_json)
    with display.rows:
        outcomes = asyncio.run(
            send(over.machines, bundle, releases, display.update, display.result, options)
        )
    check_outcomes(outcomes, f"do not have {bundle}")
    return 0


class Display:
    """Shows transfers: rows on a terminal, or JSON Lines."""

    def __init__(self, machines: Sequence[str], *, as_json: bool) -> None:
        from dorafleet.release.progress import Progress

        self._hosts = {machine: Progress(machine, "waiting") for machine in machines}
        self._width = max(map(len, machines), default=0)
        self._as_json = as_json
        self._printed: dict[str, float] = {}
        self.rows = LiveRows(self._rows, per_second=4, shown=not as_json)

    def update(self, progress: Progress) -> None:
        """Show how far a host is."""
        before = self._hosts[progress.machine].state
        self._hosts[progress.machine] = progress
        if self._as_json:
            self._print_json(progress, force=before != progress.state)
        elif not self.rows.is_drawn and before != progress.state == "retrying":
            self._print(progress.machine, f"again: {visible(progress.message)}", err=True)

    def result(self, outcome: MachineOutcome[Sent]) -> None:
        """Print the outcome of a host."""
        if self._as_json:
            print_lines([as_plain(outcome)])
        elif outcome.error is None:
            mark = click.style("✓", fg="green")
            self._print(outcome.machine.id, f"{mark} {visible(str(outcome.result))}", err=False)
        else:
            mark = click.style("✗", fg="red")
            self._print(outcome.machine.id, f"{mark} {visible(str(outcome.error))}", err=True)

    def _print(self, machine: str, text: str, *, err: bool) -> None:
        self.rows.print(f"{machine:<{self._width}}  {text}", err=err)

    def _print_json(self, progress: Progress, *, force: bool) -> None:
        import msgspec

        from dorafleet.release.progress import of_all

        now = time.monotonic()
        for each in (progress, of_all(self._hosts.values())):
            last = self._printed.get(each.machine, float("-inf"))
            changed = force and each is progress
            if changed or now - last >= JSON_INTERVAL_S:
                self._printed[each.machine] = now
                print_lines([{"event": "progress", **msgspec.to_builtins(each)}])

    def _rows(self) -> list[str]:
        from dorafleet.release.progress import of_all

        active = [each for each in self._hosts.values() if not each.ended]
        moving = [each for each in active if each.state != "waiting"][:MAX_ROWS]
        ended = len(self._hosts) - len(active)
        lines = [self._row(each) for each in moving]
        total = of_all(self._hosts.values())
        lines.append(f"{self._row(total)}  {ended} of {len(self._hosts)} machines")
        return lines

    def _row(self, progress: Progress) -> str:
        name = f"{progress.machine:<{self._width}}"
        if progress.state != "sending":
            about = f": {progress.message}" if progress.message else ""
            return f"{name}  {progress.state}{about}"
        share = progress.done / progress.total if progress.total else 0.0
        remaining = "-" if progress.left is None else age(progress.left)
        amounts = f"{progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB"
        return f"{name}  {share:4.0%}  {amounts}  {rate(progress.rate)}  {remaining} left"


def as_plain(outcome: MachineOutcome[Sent]) -> dict[str, Any]:
    """Return a host's object for `--json`; all have the same keys."""
    error, result = outcome.error, outcome.result
    return {
        "event": "result",
        "machine": outcome.machine.id,
        "host": outcome.machine.host,
        "complete": error is None,
        "objects": 0 if result is None else result.objects,
        "bytes": 0 if result is None else result.size,
        "sent": 0 if result is None else result.sent,
        "patches": 0 if result is None else result.patches,
        "seconds": 0.0 if result is None else round(result.seconds, 3),
        "error": error and {"code": error.code, "message": error.message, "hint": error.hint},
    }


def ask_targets(file: Path, *, accept_new: bool) -> list[Target]:
    """Return the targets that the machines of a cluster file need, each with its oldest glibc.

    The coordinator knows those that have ever connected to it, also if they are off now. Others are
    asked over SSH.

    Raises:
        click.ClickException: nothing is known of a machine, and it does not answer.
    """
    from dorafleet.inventory.load import load
    from dorafleet.release.targets import merged, read_machine
    from dorafleet.ssh.fanout import run_on_each

    async def ask(machine: Machine) -> Target:
        return await read_machine(machine, accept_new=accept_new)

    cluster = load(file)
    known = _known_targets(cluster)
    others = [each for each in cluster.machines if each.id not in known]
    outcomes = asyncio.run(run_on_each(others, ask, parallel=50))
    failed = [each for each in outcomes if each.error is not None]
    for each in failed:
        click.echo(f"{each.machine.id}: {visible(str(each.error))}", err=True)
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(cluster.machines)} machines do not say what they are, and the "
            "coordinator does not know them; name targets with --target"
        )
    asked = [each.result for each in outcomes if each.result is not None]
    return merged([*known.values(), *asked])


def _known_targets(cluster: Cluster) -> dict[str, Target]:
    """Return the targets of the machines that the coordinator knows; none if it does not answer."""
    from pathlib import Path

    from dorad.control.errors import ControlError
    from dorafleet.cli.coordinator import connect, list_robots
    from dorafleet.release.targets import target_of

    try:
        with connect(Path(), cluster.coordinator.port) as client:
            robots = {robot.id: robot for robot in list_robots(client)}
    except ControlError as error:
        _log.debug("the coordinator is not asked for targets: %s", error)
        return {}
    known = {}
    for machine in cluster.machines:
        robot = robots.get(machine.id)
        # Another fleet may use the same names.
        if robot is not None and robot.host == machine.host:
            target = target_of(robot.arch, robot.python, robot.glibc)
            if target is not None:
                known[machine.id] = target
    _log.debug("the coordinator knows the targets of %s", sorted(known))
    return known
