"""`dorafleet robots` and `dorafleet alerts`: rows and alerts of the console, as text or JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.commandline.instance import add_options
from dorad.commandline.tables import plain, print_object
from dorad.terminal import visible
from dorafleet.cli.checks import check_receivers
from dorafleet.cli.coordinator import connect_to, list_receivers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.control.filters import Filter
    from dorad.control.messages import Alert, FleetRow
    from dorafleet.console.view.rows import Column, Row

ORDERS = ("worst", "name", "newest", "cpu", "drops")

ROBOTS_EPILOG = """\b
Examples:
  dorafleet robots
  dorafleet robots --filter 'zone=hall !ok'
  dorafleet robots --filter 'cpu>80 since<10m' --order cpu
  dorafleet robots --json | jq -r '.[] | select(.state == "fail") | .robot'

\b
Terms of a filter: word !word key=v key!=v key>n key<n key~regex label.NAME=v since<10m.
A daemon without a coordinator answers for its own machine.
"""

ALERTS_EPILOG = """\b
Examples:
  dorafleet alerts
  dorafleet alerts --filter 'state=fail ack='
  dorafleet alerts --past
  dorafleet alerts --ack '*:unreachable:robot'
  dorafleet alerts --test               send a test to the webhook and by mail
"""


def _parse(text: str, keys: Sequence[str] = ()) -> Filter:
    from dorad.control.filters import parse

    try:
        return parse(text, keys)
    except ValueError as error:
        raise click.UsageError(f"--filter: {error}") from None


@click.command(epilog=ROBOTS_EPILOG)
@click.option("--filter", "text", metavar="TERMS", default="", help="Only robots that match.")
@click.option("--order", type=click.Choice(ORDERS), default="worst", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def robots(*, text: str, order: str, as_json: bool) -> None:
    """List robots in brief, the worst first."""
    from dorafleet.console.model.order import FLEET_ORDERS
    from dorafleet.console.view import tables

    _parse(text)
    with connect_to() as client, client.watch_fleet() as events:
        rows = next(iter(events)).rows
    labels = {name.lower() for row in rows for name in row.labels}
    wanted = _parse(text, (*tables.FLEET_KEYS, *sorted(labels)))
    now = time.time()
    matching: list[FleetRow] = [r for r in rows if wanted.matches(tables.fleet_cells(r, now))]
    matching.sort(key=FLEET_ORDERS[order])
    if as_json:
        print_object(plain(matching))
    else:
        _print(tables.FLEET, [tables.fleet_row(each, now) for each in matching])


@click.command(epilog=ALERTS_EPILOG)
@click.option("--filter", "text", metavar="TERMS", default="", help="Only alerts that match.")
@click.option("--past", is_flag=True, help="List the last 200 that are over, newest first.")
@click.option("--ack", metavar="ID", help="Acknowledge an alert.")
@click.option("--unack", metavar="ID", help="Take that back.")
@click.option("--test", is_flag=True, help="Send a test to all receivers of alerts.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def alerts(
    *,
    text: str,
    past: bool,
    ack: str | None,
    unack: str | None,
    test: bool,
    as_json: bool,
) -> int:
    """List alerts, or acknowledge one."""
    from dorafleet.console.view import alertrows

    if (ack is not None) + (unack is not None) + past + test > 1:
        raise click.UsageError("give only one of --past, --ack, --unack, --test")
    if test:
        return _send_test(as_json=as_json)
    wanted = _parse(text, alertrows.KEYS)
    if past:
        _print_past(wanted, as_json=as_json)
        return 0
    with connect_to() as client:
        listed: list[Alert]
        if ack is not None:
            listed = [client.ack_alert(ack)]
        elif unack is not None:
            listed = [client.ack_alert(unack, undo=True)]
        else:
            with client.watch_alerts() as events:
                listed = next(iter(events)).alerts
        receivers = list_receivers(client)
    now = time.time()
    listed = [each for each in listed if wanted.matches(alertrows.cells(each, now))]
    if as_json:
        print_object(plain(listed))
    elif listed:
        _print(alertrows.COLUMNS[:-1], [alertrows.row(each, now) for each in listed], ids=True)
    else:
        click.echo("no alerts")
    for check in check_receivers(receivers, now):
        if check.level != "PASS":
            click.echo(f"{check.name}: {visible(check.text)}", err=True)
    return 0


def _send_test(*, as_json: bool) -> int:
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import ALERTS_TEST

    with connect_to() as client:
        errors = client.call(ALERTS_TEST, Nothing()).errors
        if as_json:
            print_object(errors)
        else:
            places = {each.name: each.place for each in list_receivers(client).receivers}
            for name, error in errors.items():
                result = f"failed: {error}" if error else "delivered"
                click.echo(visible(f"{name} at {places.get(name, '?')}: {result}"))
    return 1 if any(errors.values()) else 0


def _print_past(wanted: Filter, *, as_json: bool) -> None:
    from dorad.control.alertbook import MAX_PAST
    from dorafleet.console.view import alertrows

    with connect_to() as client:
        past = client.past_alerts(limit=MAX_PAST).alerts
    now = time.time()
    past = [each for each in past if wanted.matches(alertrows.cells(each, now))]
    if as_json:
        print_object(plain(past))
    elif past:
        _print(alertrows.PAST_COLUMNS, map(alertrows.past_row, past))
    else:
        click.echo("no alerts have ended since the server was started")


def _print(columns: Sequence[Column], rows: Iterable[Row], *, ids: bool = False) -> None:
    from dorad.commandline.tables import print_table

    titles = [column.title for column in columns]
    lines = [[visible(cell.text) for cell in row.cells[: len(titles)]] for row in rows]
    if ids:
        titles.append("ID")
        lines = [[*line, row.id] for line, row in zip(lines, rows, strict=True)]
    print_table(titles, lines)


add_options(robots)
add_options(alerts)
