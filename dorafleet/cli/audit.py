"""`dorafleet audit`: show or verify the changes that were made through the coordinator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.cli.durations import Duration
from dorad.cli.tables import plain, print_lines, print_object, print_table
from dorad.control.errors import ControlError
from dorad.terminal import local_time
from dorafleet.cli.arguments import json_option, port_option, state_option
from dorafleet.cli.coordinator import connect
from dorafleet.console.view import auditrows

if TYPE_CHECKING:
    from collections.abc import Iterator
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
\b
The hash of each record includes the hash of the previous one. A record that was changed, removed or
inserted breaks this chain. If its end was cut off, the chain lacks the head that you have kept.
Exit code 0: the audit is complete. 1: it is not, or no coordinator answers.
"""


@click.command(epilog=EPILOG)
@click.argument("action", type=click.Choice(["verify"]), required=False)
@click.option("--after", type=click.IntRange(0), default=0, help="Only records after this number.")
@click.option("--since", type=Duration(), metavar="DURATION", help="Only newer records: 30m, 2h.")
@click.option("--known", metavar="HEAD", help="With `verify`: a head that the audit must contain.")
@json_option
@state_option
@port_option
def audit(
    action: str | None,
    *,
    after: int,
    since: float | None,
    known: str | None,
    as_json: bool,
    state: Path,
    port: int,
) -> None:
    """Show the coordinator's record of every change, or `verify` that it is complete."""
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
        raise click.UsageError(f"`verify` checks all records; {option} does not go with it")
    if known is not None:
        _check_head(known)
    with connect(state, port) as client:
        head = _verify(client, known)
    if as_json:
        print_object({"head": str(head)})
    else:
        count = head.sequence
        click.echo(f"ok, {'1 record' if count == 1 else f'{count} records'}; head: {head}")


def _read(client: Client, after: int) -> Iterator[AuditRecord]:
    from dorafleet.coordinator.messages import AuditPage, AuditRead

    while True:
        page = client.call("audit.read", AuditRead(after=after, limit=PAGE), AuditPage)
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
    from dorafleet.coordinator.messages import AuditHead, AuditVerify

    found = client.call("audit.verify", AuditVerify(known=known), AuditHead).head
    try:
        return Head.parse(found)
    except ValueError as error:
        raise ControlError("bad-request", f"the coordinator's answer: {error}") from None


def _as_row(found: AuditRecord) -> tuple[str, ...]:
    record = found.record
    return (
        str(found.sequence),
        local_time(auditrows.time_of(found), "%Y-%m-%d %H:%M:%S"),
        auditrows.who(record),
        str(record.get("client")),
        auditrows.change(record),
    )
