"""`dorafleet rollout status`, `history`, and what an operator does to a rollout meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from dorad.cli.complete import matching
from dorad.cli.tables import plain, print_lines, print_object, print_table
from dorad.terminal import visible
from dorafleet.cli import rolloutshow
from dorafleet.cli.arguments import json_option, port_option, state_option
from dorafleet.cli.complete import connect_briefly
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.rollout.messages import JournalEntry, RolloutDetail, RolloutSummary

PAGE = 1000
BAD = frozenset(
    {
        "failed",
        "reverting",
        "reverted",
        "revert_incomplete",
        "refused",
        "aborted",
        "superseded",
        "succeeded_partially",
    }
)
"""Phases in which robots are without the release that they should have."""

STATUS_EPILOG = """\b
Examples:
  dorafleet rollout status
  dorafleet rollout status 12 --json | jq -r '.robots[] | select(.state == "reverted") | .robot'
\b
Robots with problems come first. Exit code 0: the rollout continues, or its robots have the release.
1: it has failed, was reverted or was ended, or some of its robots have failed.
"""
ACT_EPILOG = """\b
Examples:
  dorafleet rollout {act} 12
  dorafleet rollout {act} --reason "night shift"
\b
Exit code 0: success. 1: the rollout is in a state that does not allow this.
"""
HISTORY_EPILOG = """\b
Examples:
  dorafleet rollout history                all rollouts
  dorafleet rollout history 12             each step of one
  dorafleet rollout history --dataflow arm --json
"""

reason_option = click.option("--reason", default="", help="For the journal and the audit.")


def _numbers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the rollouts that the coordinator knows; none if it does not answer."""
    del ctx, param

    def rollouts(client: Client) -> Iterable[CompletionItem]:
        for each in _list(client, None):
            yield CompletionItem(str(each.rollout), help=f"{each.name}: {each.state}")

    return matching(incomplete, connect_briefly, rollouts)


number_argument = click.argument(
    "number",
    metavar="[ROLLOUT]",
    type=click.IntRange(1, 99_999_999),
    required=False,
    shell_complete=_numbers,
)


@click.command(epilog=STATUS_EPILOG)
@number_argument
@json_option
@state_option
@port_option
def status(number: int | None, *, as_json: bool, state: Path, port: int) -> int:
    """Show a rollout and each of its robots."""
    with connect(state, port) as client:
        found = read_status(client, number)
    if as_json:
        print_object(plain(found))
    else:
        click.echo(visible(rolloutshow.summary_line(found.summary)))
        click.echo(visible(rolloutshow.wave_line(found.summary)))
        if opening := rolloutshow.opening_line(found.summary):
            click.echo(opening)
        rows = rolloutshow.worst_first(found.robots)
        print_table(
            rolloutshow.ROBOT_COLUMNS, [rolloutshow.robot_row(row, time.time()) for row in rows]
        )
    failed = found.summary.phase in BAD or rolloutshow.has_failures(found.summary)
    return 1 if failed else 0


@click.command(epilog=HISTORY_EPILOG)
@number_argument
@click.option("--dataflow", metavar="NAME", help="Only rollouts of this dataflow.")
@json_option
@state_option
@port_option
def history(
    number: int | None, *, dataflow: str | None, as_json: bool, state: Path, port: int
) -> None:
    """List all rollouts, or each step of one."""
    if number is not None and dataflow is not None:
        raise click.UsageError("--dataflow does not go with a number")
    with connect(state, port) as client:
        if number is None:
            found = _list(client, dataflow)
            if as_json:
                print_lines(map(plain, found))
            else:
                print_table(rolloutshow.HISTORY_COLUMNS, map(rolloutshow.history_row, found))
            return
        entries = _journal(client, number)
    if as_json:
        print_lines(map(plain, entries))
    else:
        print_table(rolloutshow.JOURNAL_COLUMNS, map(rolloutshow.journal_row, entries))


@click.command(epilog=ACT_EPILOG.format(act="pause"))
@number_argument
@reason_option
@json_option
@state_option
@port_option
def pause(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """Give robots no further orders; those that switch now finish."""
    act_on("pause", number, reason, state, port, as_json=as_json)


@click.command(epilog=ACT_EPILOG.format(act="resume"))
@number_argument
@reason_option
@json_option
@state_option
@port_option
def resume(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """Continue after a pause."""
    act_on("resume", number, reason, state, port, as_json=as_json)


@click.command(epilog=ACT_EPILOG.format(act="promote"))
@number_argument
@reason_option
@json_option
@state_option
@port_option
def promote(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """Continue with the other robots after the canaries."""
    act_on("promote", number, reason, state, port, as_json=as_json)


@click.command(epilog=ACT_EPILOG.format(act="abort"))
@number_argument
@reason_option
@json_option
@state_option
@port_option
def abort(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """End a rollout before any further switch; robots that have the release keep it."""
    act_on("abort", number, reason, state, port, as_json=as_json)


def read_status(client: Client, number: int | None) -> RolloutDetail:
    """Return a rollout with its robots, by default the newest. Raises ControlError."""
    from dorafleet.rollout.messages import ROLLOUT_STATUS, RolloutRef

    return client.call(ROLLOUT_STATUS, RolloutRef(rollout=number))


def _list(client: Client, dataflow: str | None) -> Sequence[RolloutSummary]:
    from dorafleet.rollout.messages import ROLLOUT_LIST, RolloutRef

    return client.call(ROLLOUT_LIST, RolloutRef(dataflow=dataflow)).rollouts


def _journal(client: Client, number: int) -> list[JournalEntry]:
    from dorafleet.rollout.messages import ROLLOUT_JOURNAL, JournalRead

    entries: list[JournalEntry] = []
    while True:
        after = entries[-1].step if entries else 0
        params = JournalRead(rollout=number, after=after, limit=PAGE)
        page = client.call(ROLLOUT_JOURNAL, params).entries
        entries += page
        if len(page) < PAGE:
            return entries


def act_on(
    act: str,
    number: int | None,
    reason: str,
    state: Path,
    port: int,
    *,
    as_json: bool,
    quiet: bool = False,
    max_parallel: str | None = None,
    all_at_once: bool = False,
) -> RolloutSummary:
    """Do something to a rollout, by default the newest, and print it. Raises ControlError."""
    from dorafleet.rollout.messages import ROLLOUT_ACTS, RolloutAct

    with connect(state, port) as client:
        if number is None:
            number = read_status(client, None).summary.rollout
        params = RolloutAct(
            rollout=number, reason=reason, max_parallel=max_parallel, all_at_once=all_at_once
        )
        found = client.call(ROLLOUT_ACTS[act], params)
    if as_json:
        print_object(plain(found))
    elif not quiet:
        click.echo(visible(rolloutshow.summary_line(found)))
        if act in ("promote", "resume"):
            click.echo(f"`dorafleet rollout follow {number}` sends files, and shows it", err=True)
    return found
