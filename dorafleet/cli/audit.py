"""`dorafleet audit`: show, verify or acknowledge the changes made through the coordinator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.commandline.durations import Duration
from dorad.commandline.tables import plain, print_lines, print_object, print_table
from dorad.control.errors import ControlError
from dorad.terminal import local_time, visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.complete import robot_ids
from dorafleet.cli.coordinator import connect
from dorafleet.console.view import auditrows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.coordinator.audit import Head
    from dorafleet.coordinator.messages import AuditRecord

PAGE = 100

EPILOG = """\b
Examples:
  dorafleet audit
  dorafleet audit --since 30m
  dorafleet audit --after 120 --json
  dorafleet audit verify
  dorafleet audit verify --known 120:5d1e…   (a head that an earlier `verify` printed)
  dorafleet audit acknowledge                after a restore
  dorafleet audit acknowledge arm1
\b
The hash of each record includes the hash of the previous one. A record that was changed, removed or
inserted breaks this chain. If its end was cut off, the chain lacks the head that you have kept.
Robots keep the head, and the newest revocations, too: `dorafleet status` shows each robot that
knows more than the audit has. That stays until you say with `acknowledge` that you know why.
Exit code 0: the audit is complete. 1: it is not, or no coordinator answers.
"""


@click.command(epilog=EPILOG)
@click.argument("action", type=click.Choice(["verify", "acknowledge"]), required=False)
@click.argument("machine", nargs=-1, shell_complete=robot_ids)
@click.option("--after", type=click.IntRange(0), default=0, help="Only records after this number.")
@click.option("--since", type=Duration(), metavar="DURATION", help="Only newer records: 30m, 2h.")
@click.option("--known", metavar="HEAD", help="With `verify`: a head that the audit must contain.")
@json_option
@coordinator_options
def audit(
    action: str | None,
    machine: Sequence[str],
    *,
    after: int,
    since: float | None,
    known: str | None,
    as_json: bool,
    state: Path,
    port: int,
) -> None:
    """Show the coordinator's record of every change, `verify` it, or `acknowledge` a loss."""
    if machine and action != "acknowledge":
        raise click.UsageError("only `acknowledge` takes names of machines")
    if action is None:
        if known is not None:
            raise click.UsageError("--known needs `verify`")
        with connect(state, port) as client:
            oldest = 0.0 if since is None else time.time() - since
            records = [each for each in _read(client, after) if auditrows.time_of(each) >= oldest]
        if as_json:
            print_lines(plain(record) for record in records)
        else:
            print_table(("Number", "Time", "Who", "Client", "Change"), map(_as_row, records))
        return
    if after or since is not None:
        option = "--after" if after else "--since"
        raise click.UsageError(f"{option} does not go with `{action}`")
    if action == "acknowledge":
        if known is not None:
            raise click.UsageError("--known needs `verify`")
        with connect(state, port) as client:
            _acknowledge(client, machine, as_json=as_json)
        return
    if known is not None:
        _check_head(known)
    with connect(state, port) as client:
        head = _verify(client, known)
    if as_json:
        print_object({"head": str(head)})
    else:
        count = head.sequence
        click.echo(f"ok, {'1 record' if count == 1 else f'{count} records'}; head: {head}")


def _acknowledge(client: Client, machines: Sequence[str], *, as_json: bool) -> None:
    """Acknowledge that the audit lacks what machines know, and print which.

    Raises:
        click.ClickException: some of them differ still.
    """
    from dorafleet.coordinator.messages import AUDIT_ACKNOWLEDGE, AuditAcknowledge

    names = [name for word in machines for name in word.split(",") if name]
    done = client.call(AUDIT_ACKNOWLEDGE, AuditAcknowledge(robots=names))
    if as_json:
        print_object(plain(done))
    else:
        for name in done.robots:
            click.echo(visible(f"{name}: follows the audit as it is"))
        for name, why in sorted(done.failed.items()):
            click.echo(visible(f"{name}: {why}"), err=True)
    if done.failed:
        failed = ", ".join(map(visible, sorted(done.failed)))
        raise click.ClickException(f"not acknowledged: {failed}")


def _read(client: Client, after: int) -> Iterator[AuditRecord]:
    from dorafleet.coordinator.messages import AUDIT_READ, AuditRead

    while True:
        page = client.call(AUDIT_READ, AuditRead(after=after, limit=PAGE))
        yield from page.records
        if len(page.records) < PAGE:
            return
        after = page.records[-1].sequence


def _check_head(text: str) -> None:
    from dorafleet.coordinator.audit import Head

    try:
        Head.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--known") from None


def _verify(client: Client, known: str | None) -> Head:
    """Return the head that the coordinator has verified. Raises ControlError."""
    from dorafleet.coordinator.audit import Head
    from dorafleet.coordinator.messages import AUDIT_VERIFY, AuditVerify

    head = client.call(AUDIT_VERIFY, AuditVerify(known=known)).head
    try:
        return Head.parse(head)
    except ValueError as error:
        raise ControlError("bad-request", f"the coordinator's answer: {error}") from None


def _as_row(entry: AuditRecord) -> tuple[str, ...]:
    record = entry.record
    return (
        str(entry.sequence),
        local_time(auditrows.time_of(entry), "%Y-%m-%d %H:%M:%S"),
        auditrows.who(record),
        str(record.get("client")),
        auditrows.change(record),
    )
