"""`dorafleet rollout status`, `history`, and what an operator does to a rollout meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import click
from click.shell_completion import CompletionItem

from dorad.commandline.complete import matching
from dorad.commandline.tables import plain, print_lines, print_object, print_table
from dorad.terminal import visible
from dorafleet.cli import rolloutshow
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.complete import connect_briefly
from dorafleet.cli.coordinator import connect
from dorafleet.rollout.model import BACK, FAILURES, FINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.rollout.messages import JournalEntry, RolloutDetail, RolloutSummary

PAGE = 1000
MAX_DIGITS = 9
BAD = (FINAL | BACK) - {"succeeded"}
"""Phases in which robots are without the release that they should have."""

STATUS_EPILOG = """\b
Examples:
  dorafleet rollout status
  dorafleet rollout status cell1/pick            the newest of `pick`, one instance
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


class Chosen(NamedTuple):
    """The rollout of a command: by its number, or the newest; and one of its instances."""

    number: int | None = None
    dataflow: str | None = None
    """None: of all dataflows."""
    instance: str = ""
    """Empty for all."""


class _Rollout(click.ParamType[Chosen]):
    name = "rollout"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Chosen:
        if isinstance(value, Chosen):
            return value
        text = str(value)
        if text.isdecimal() and len(text) < MAX_DIGITS and int(text) > 0:
            return Chosen(int(text))
        instance, _, dataflow = text.rpartition("/")
        if not dataflow or "/" in instance or text.lstrip("-").isdecimal():
            self.fail(f"`{text}` is no number of a rollout, nor NAME or INSTANCE/NAME", param, ctx)
        return Chosen(None, dataflow, instance)


number_argument = click.argument(
    "chosen",
    metavar="[ROLLOUT|[INSTANCE/]NAME]",
    type=_Rollout(),
    default=Chosen(),
    shell_complete=_numbers,
)


@click.command(epilog=STATUS_EPILOG)
@number_argument
@json_option
@coordinator_options
def status(chosen: Chosen, *, as_json: bool, state: Path, port: int) -> int:
    """Show a rollout and each of its robots, or those of one instance."""
    with connect(state, port) as client:
        detail = read_status(client, chosen)
    if as_json:
        print_object(plain(detail))
    else:
        click.echo(visible(rolloutshow.summary_line(detail.summary)))
        click.echo(visible(rolloutshow.wave_line(detail.summary)))
        if opening := rolloutshow.opening_line(detail.summary):
            click.echo(opening)
        rows = rolloutshow.worst_first(detail.robots)
        print_table(
            rolloutshow.ROBOT_COLUMNS, [rolloutshow.robot_row(row, time.time()) for row in rows]
        )
    failed = detail.summary.phase in BAD or rolloutshow.has_failures(detail.summary)
    if chosen.instance:
        failed = any(each.state in FAILURES for each in detail.robots)
    return 1 if failed else 0


@click.command(epilog=HISTORY_EPILOG)
@number_argument
@click.option("--dataflow", metavar="NAME", help="Only rollouts of this dataflow.")
@json_option
@coordinator_options
def history(chosen: Chosen, *, dataflow: str | None, as_json: bool, state: Path, port: int) -> None:
    """List all rollouts, those of the deployment NAME, or each step of one."""
    number, name = chosen.number, chosen.dataflow
    if dataflow is not None and (number is not None or name not in (None, dataflow)):
        raise click.UsageError("--dataflow does not go with another rollout")
    if chosen.instance:
        raise click.UsageError(
            f"a rollout has one history for all instances: leave out `{chosen.instance}/`"
        )
    with connect(state, port) as client:
        if number is None:
            rollouts = _list(client, name or dataflow)
            if as_json:
                print_lines(map(plain, rollouts))
            else:
                print_table(rolloutshow.HISTORY_COLUMNS, map(rolloutshow.history_row, rollouts))
            return
        entries = _journal(client, number)
    if as_json:
        print_lines(map(plain, entries))
    else:
        print_table(rolloutshow.JOURNAL_COLUMNS, map(rolloutshow.journal_row, entries))


def _act_command(act: str, help_text: str) -> click.Command:
    @click.command(act, help=help_text, epilog=ACT_EPILOG.format(act=act))
    @number_argument
    @reason_option
    @json_option
    @coordinator_options
    def command(chosen: Chosen, *, reason: str, as_json: bool, state: Path, port: int) -> None:
        if chosen.instance:
            hint = f"leave out `{chosen.instance}/`; `undo` takes an instance"
            raise click.UsageError(f"{act} is for all instances of a rollout: {hint}")
        act_on(act, chosen, reason, state, port, as_json=as_json)

    return command


pause = _act_command("pause", "Give robots no further orders; those that switch now finish.")
resume = _act_command("resume", "Continue after a pause.")
promote = _act_command("promote", "Continue with the other robots after the canaries.")
abort = _act_command(
    "abort", "End a rollout before any further switch; robots that have the release keep it."
)


def read_status(client: Client, chosen: Chosen) -> RolloutDetail:
    """Return a rollout with its robots, or those of an instance. Raises ControlError."""
    from dorad.control.errors import ControlError
    from dorad.dataflow.nearest import did_you_mean
    from dorafleet.rollout.messages import ROLLOUT_STATUS, RolloutRef

    ref = RolloutRef(rollout=chosen.number, dataflow=chosen.dataflow)
    detail = client.call(ROLLOUT_STATUS, ref)
    if name := chosen.instance:
        instances = {each.instance or each.robot for each in detail.robots}
        if name not in instances:
            number = detail.summary.rollout
            raise ControlError(
                "not-found",
                f"rollout {number} has no instance `{name}`",
                did_you_mean(name, instances) or f"`dorafleet rollout status {number}` shows them",
            )
        detail.robots = [each for each in detail.robots if name == (each.instance or each.robot)]
    return detail


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
    chosen: Chosen,
    reason: str,
    state: Path,
    port: int,
    *,
    as_json: bool,
    quiet: bool = False,
    max_parallel: str | None = None,
    all_at_once: bool = False,
) -> RolloutSummary:
    """Do something to a rollout, or an instance of it, and print it. Raises ControlError."""
    from dorafleet.rollout.messages import ROLLOUT_ACTS, RolloutAct

    with connect(state, port) as client:
        number = chosen.number
        if number is None:
            number = read_status(client, chosen).summary.rollout
        params = RolloutAct(
            rollout=number,
            reason=reason,
            max_parallel=max_parallel,
            all_at_once=all_at_once,
            instances=[chosen.instance] if chosen.instance else [],
        )
        summary = client.call(ROLLOUT_ACTS[act], params)
    if as_json:
        print_object(plain(summary))
    elif not quiet:
        click.echo(visible(rolloutshow.summary_line(summary)))
        if act in ("promote", "resume"):
            click.echo(f"`dorafleet rollout follow {number}` sends files, and shows it", err=True)
    return summary
