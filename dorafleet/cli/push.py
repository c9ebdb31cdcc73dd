"""`dorafleet push`: copy a file to many machines."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import print_lines
from dorad.phrases import size_text
from dorafleet.cli.arguments import OverSsh, over_ssh
from dorafleet.cli.progress import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorafleet.inventory.model import Machine
    from dorafleet.ssh.connection import Connection
    from dorafleet.ssh.fanout import MachineOutcome

EPILOG = """\b
Examples:
  dorafleet push cluster.yml calibration.json /etc/arm/calibration.json
  dorafleet push cluster.yml map.bin /srv/map.bin --only arm1 --mode 0644
\b
The file is copied beside its place, verified, and renamed: no reader ever sees a part of it. The
ssh user must be allowed to write there. Files of a dataflow belong into a release: see `dorafleet
release build`.
Exit code 0: all machines have it. 1: some do not, and are named.
"""


@click.command(epilog=EPILOG)
@over_ssh()
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("target")
@click.option("--mode", metavar="OCTAL", help="Permissions, such as 0644.  [default: those here]")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each machine.")
def push(over: OverSsh, source: Path, target: str, *, mode: str | None, as_json: bool) -> int:
    """Copy the file SOURCE to the absolute path TARGET on the machines in FILE."""
    from dorafleet.ssh.connection import connect

    if not target.startswith("/") or target.endswith("/") or "\0" in target:
        raise click.UsageError(f"'{target}' is not the absolute path of a file")
    if not source.is_file():
        raise click.UsageError(f"'{source}' is not a regular file")
    permissions = _mode(mode, source)
    size = source.stat().st_size
    with Reporter(over.ids, size, as_json=as_json) as reporter:

        async def push_one(machine: Machine) -> None:
            reporter.step(machine.id, "connecting")
            async with connect(machine, accept_new=over.accept_new) as robot:
                reporter.step(machine.id, "copying")
                await copy(robot, source, target, permissions, partial(reporter.sent, machine.id))

        def report(outcome: MachineOutcome[None]) -> None:
            if outcome.error is None:
                reporter.done(outcome.machine.id, f"{target} ({size_text(size)})")
            else:
                reporter.failed(outcome.machine.id, str(outcome.error))

        outcomes = over.run(push_one, report)
    if as_json:
        print_lines(
            {
                "machine": each.machine.id,
                "copied": each.error is None,
                "error": each.error and {"code": each.error.code, "message": each.error.message},
            }
            for each in outcomes
        )
    failed = [each.machine.id for each in outcomes if each.error is not None]
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(outcomes)} machines do not have it: {', '.join(failed)}"
        )
    return 0


def _mode(text: str | None, source: Path) -> str:
    if text is None:
        return f"{source.stat().st_mode & 0o777:o}"
    try:
        number = int(text, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777:
        raise click.UsageError(f"'{text}' is not a mode such as 0644")
    return f"{number:o}"


async def copy(
    robot: Connection, source: Path, target: str, mode: str, sent: Callable[[int], object]
) -> None:
    """Copy a file beside its place, verify it, and rename it. Raises SshError."""
    new = f"{target}.{secrets.token_hex(4)}.new"
    try:
        await robot.upload(source, new, sent)
        await robot.check(["chmod", mode, "--", new])
        # -T: a folder of that name is an error, not the place for the file.
        await robot.check(["mv", "-fT", "--", new, target])
    except BaseException:
        # Also after a failed copy, so that no part of it stays.
        await robot.run(["rm", "-f", "--", new])
        raise
