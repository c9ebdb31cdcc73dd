"""`dorafleet rollout` and `dorafleet plan`: bring a release to robots, and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dorad.cli.groups import Group
from dorad.cli.tables import plain, print_lines, print_object, print_table
from dorad.terminal import visible
from dorafleet.cli import rolloutshow
from dorafleet.cli.arguments import File, port_option, state_option
from dorafleet.cli.coordinator import connect, target_of
from dorafleet.cli.release import json_option, release_argument, store_option
from dorafleet.cli.rolloutoptions import request_of, rollout_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.rollout.messages import (
        JournalEntry,
        RolloutDetail,
        RolloutNew,
        RolloutPlan,
        RolloutSummary,
    )

REACHED = frozenset({"succeeded", "settled", "awaiting_promotion"})
PAGE = 1000

EPILOG = """\b
Examples:
  dorafleet plan arm                                what would change, robot by robot
  dorafleet rollout start arm --label zone=hall     then follow it, and send the files
  dorafleet rollout status
  dorafleet rollout undo 12
\b
ROLLOUT is a number; without it the newest is meant. docs/rollouts.md has all keys, and a table of
what happens if something goes wrong during a rollout.
"""
START_EPILOG = """\b
Examples:
  dorafleet rollout start arm --dry-run
  dorafleet rollout start arm@4 --label zone=hall --canary 2 --max-parallel 5
  dorafleet rollout start arm --strategy night.yml --budget cell=1 --detach
  dorafleet rollout start arm --json | jq -c 'select(.event == "end")'
\b
The release is registered with the coordinator, which drives the rollout, also without this command.
Files are sent over SSH from here, to the machines of the cluster file, while it is followed. Ctrl-C
ends only this command.
Exit code 0: all robots that can be reached have it. 1: it was refused, has failed, or was reverted.
"""
PLAN_EPILOG = """\b
Examples:
  dorafleet plan arm
  dorafleet plan arm@4 --robots arm1,arm2 --canary 0
  dorafleet plan arm --json | jq '.changes[0].replaced'
\b
Nothing is changed. What robots run, and whether they answer, is as the coordinator knows it now.
Exit code 0: it can be started, or there is nothing to do on any robot. 1: it is refused.
"""
FOLLOW_EPILOG = """\b
Examples:
  dorafleet rollout follow            the newest
  dorafleet rollout follow 12 --json
\b
On a machine that has the release, robots that wait for files get them. Several may follow at once.
Exit code 0: all robots that can be reached have it. 1: it has failed, or was reverted.
"""
UNDO_EPILOG = """\b
Examples:
  dorafleet rollout undo 12
  dorafleet rollout undo --reason "grip slips" --detach
\b
Every robot switches back to what it had before this rollout, a few at a time as on the way there.
Only the newest rollout of a dataflow can be undone.
Exit code 0: all robots are back. 1: some are not, and are named.
"""
HISTORY_EPILOG = """\b
Examples:
  dorafleet rollout history                all rollouts
  dorafleet rollout history 12             each step of one
  dorafleet rollout history --dataflow arm --json
"""

cluster_option = click.option(
    "--cluster",
    metavar="FILE",
    type=File(".yml", ".yaml"),
    default="cluster.yml",
    show_default=True,
    help="The machines, to send them files.",
)
reason_option = click.option("--reason", default="", help="For the journal and the audit.")
detach_option = click.option("--detach", is_flag=True, help="Do not follow it.")


def _numbers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the rollouts that the coordinator knows; none if it does not answer."""
    from dorad.problems import ProblemError
    from dorafleet.cli.arguments import default_state

    del param
    try:
        with connect(ctx.params.get("state") or default_state(), 6013) as client:
            found = _list(client, None)
    except ProblemError:
        return []
    return [
        CompletionItem(str(each.rollout), help=f"{each.name}: {each.state}")
        for each in found
        if str(each.rollout).startswith(incomplete)
    ]


number_argument = click.argument(
    "number",
    metavar="[ROLLOUT]",
    type=click.IntRange(1, 99_999_999),
    required=False,
    shell_complete=_numbers,
)


@click.command(epilog=PLAN_EPILOG)
@release_argument("release")
@rollout_options
@store_option
@json_option
@state_option
@port_option
def plan(
    release: str, *, store: Path | None, as_json: bool, state: Path, port: int, **given: Any
) -> None:
    """Show exactly what a rollout of RELEASE would change on each robot."""
    request = request_of(release, given)
    with connect(state, port) as client:
        found = _plan(client, request, store)
    print_plan(found, as_json=as_json)


@click.group(cls=Group, epilog=EPILOG)
def rollout() -> None:
    """Bring a release to robots, step by step, and back."""


@rollout.command(epilog=START_EPILOG)
@release_argument("release")
@rollout_options
@click.option("--dry-run", is_flag=True, help="Show what would change, as `dorafleet plan` does.")
@detach_option
@cluster_option
@store_option
@json_option
@state_option
@port_option
def start(
    release: str,
    *,
    dry_run: bool,
    detach: bool,
    cluster: Path,
    store: Path | None,
    as_json: bool,
    state: Path,
    port: int,
    **given: Any,
) -> int:
    """Start a rollout of RELEASE and follow it."""
    import msgspec

    from dorafleet.cli.rolloutfollow import run, sender_for
    from dorafleet.rollout.messages import RolloutSummary

    request = request_of(release, given)
    with connect(state, port) as client:
        found = _plan(client, request, store)
        if dry_run:
            print_plan(found, as_json=as_json)
            return 0
        sender = sender_for(store, found.release.id, cluster)
        # By its id: another release of the name may have been registered since the plan.
        wanted = msgspec.structs.replace(
            request, release=found.release.id, if_version=found.version
        )
        summary = client.call("rollout.start", wanted, RolloutSummary)
    if not as_json:
        for each in found.supersedes:
            click.echo(f"rollout {each} is superseded")
        click.echo(visible(f"rollout {summary.rollout} has started"))
    if detach:
        if as_json:
            print_object(plain(summary))
        return 0
    target = target_of(state, port)
    return run(target, summary.rollout, sender, as_json=as_json, good=REACHED)


@rollout.command(epilog=FOLLOW_EPILOG)
@number_argument
@cluster_option
@store_option
@json_option
@state_option
@port_option
def follow(
    number: int | None,
    *,
    cluster: Path,
    store: Path | None,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Follow a rollout to its end, and send files to robots that wait for them."""
    from dorafleet.cli.rolloutfollow import run, sender_for

    with connect(state, port) as client:
        summary = _status(client, number).summary
    sender = sender_for(store, summary.release, cluster)
    undone = summary.phase in ("reverting", "revert_incomplete", "reverted")
    good = frozenset({"reverted"}) if undone and _is_undone(summary) else REACHED
    return run(target_of(state, port), summary.rollout, sender, as_json=as_json, good=good)


@rollout.command()
@number_argument
@json_option
@state_option
@port_option
def status(number: int | None, *, as_json: bool, state: Path, port: int) -> int:
    """Show a rollout and each of its robots.

    Exit code 0: it goes on, or all its robots have the release. 1: it has failed, was reverted or
    was ended.
    """
    with connect(state, port) as client:
        found = _status(client, number)
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
    bad = ("failed", "reverting", "reverted", "revert_incomplete", "aborted", "superseded")
    return 1 if found.summary.phase in (*bad, "succeeded_partially") else 0


@rollout.command(epilog=HISTORY_EPILOG)
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


@rollout.command()
@number_argument
@reason_option
@json_option
@state_option
@port_option
def pause(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """Give robots no further orders; those that switch now finish."""
    _act("pause", number, reason, state, port, as_json=as_json)


@rollout.command()
@number_argument
@reason_option
@json_option
@state_option
@port_option
def resume(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """Go on after a pause."""
    _act("resume", number, reason, state, port, as_json=as_json)


@rollout.command()
@number_argument
@reason_option
@json_option
@state_option
@port_option
def promote(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """Go on with the other robots after the canaries."""
    _act("promote", number, reason, state, port, as_json=as_json)


@rollout.command()
@number_argument
@reason_option
@json_option
@state_option
@port_option
def abort(number: int | None, *, reason: str, as_json: bool, state: Path, port: int) -> None:
    """End a rollout before any further switch; robots that have the release keep it."""
    _act("abort", number, reason, state, port, as_json=as_json)


@rollout.command(epilog=UNDO_EPILOG)
@number_argument
@reason_option
@detach_option
@cluster_option
@store_option
@json_option
@state_option
@port_option
def undo(
    number: int | None,
    *,
    reason: str,
    detach: bool,
    cluster: Path,
    store: Path | None,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Bring all robots of a rollout back to what they had before."""
    from dorafleet.cli.rolloutfollow import Sender, run

    del cluster, store  # what robots had before is still there
    found = _act("undo", number, reason, state, port, as_json=as_json and detach, quiet=not detach)
    if detach:
        return 0
    sender = Sender(None, None, {}, "what they had before is not on them any more: roll it out")
    good = frozenset({"reverted"})
    return run(target_of(state, port), found.rollout, sender, as_json=as_json, good=good)


def print_plan(found: RolloutPlan, *, as_json: bool) -> None:
    """Print a plan: each robot, then each change once."""
    if as_json:
        print_object(plain(found))
        return
    rows = [rolloutshow.plan_row(found, robot) for robot in found.robots]
    print_table(rolloutshow.PLAN_COLUMNS, rows)
    for place, changes in enumerate(found.changes):
        robots = [robot.robot for robot in found.robots if robot.changes == place]
        for line in rolloutshow.change_lines(changes, robots):
            click.echo(visible(line))
    click.echo(
        f"at most {found.parallel} at a time, {found.tolerated} may fail, none of the canaries"
    )
    for number in found.supersedes:
        click.echo(f"it would supersede rollout {number}")


def _plan(client: Client, request: RolloutNew, store: Path | None) -> RolloutPlan:
    """Register the release if this machine has it, and return the plan."""
    import msgspec

    from dorafleet.rollout.messages import RolloutPlan

    registered = _register(client, request.release, store)
    if registered is not None:
        request = msgspec.structs.replace(request, release=registered)
    return client.call("rollout.plan", request, RolloutPlan)


def _register(client: Client, wanted: str, store: Path | None) -> str | None:
    """Register a release of this machine; return its id, None if it is not here."""
    import zlib

    from dorafleet.cli.release import open_store
    from dorafleet.release.errors import BuildError
    from dorafleet.rollout.messages import ReleaseInfo, ReleasePut

    try:
        bundle = open_store(store).find(wanted)
    except BuildError:
        return None
    put = ReleasePut(
        content=zlib.compress(bundle.content), signature=bundle.signature.decode("ascii", "replace")
    )
    return client.call("release.put", put, ReleaseInfo).id


def _status(client: Client, number: int | None) -> RolloutDetail:
    from dorafleet.rollout.messages import RolloutDetail, RolloutRef

    return client.call("rollout.status", RolloutRef(rollout=number), RolloutDetail)


def _list(client: Client, dataflow: str | None) -> Sequence[RolloutSummary]:
    from dorafleet.rollout.messages import RolloutList, RolloutRef

    return client.call("rollout.list", RolloutRef(dataflow=dataflow), RolloutList).rollouts


def _journal(client: Client, number: int) -> list[JournalEntry]:
    from dorafleet.rollout.messages import Journal, JournalRead

    entries: list[JournalEntry] = []
    while True:
        after = entries[-1].step if entries else 0
        params = JournalRead(rollout=number, after=after, limit=PAGE)
        page = client.call("rollout.journal", params, Journal).entries
        entries += page
        if len(page) < PAGE:
            return entries


def _is_undone(summary: RolloutSummary) -> bool:
    return summary.reason.startswith("undone by")


def _act(
    act: str,
    number: int | None,
    reason: str,
    state: Path,
    port: int,
    *,
    as_json: bool,
    quiet: bool = False,
) -> RolloutSummary:
    from dorafleet.rollout.messages import RolloutAct, RolloutSummary

    with connect(state, port) as client:
        if number is None:
            number = _status(client, None).summary.rollout
        params = RolloutAct(rollout=number, reason=reason)
        found = client.call(f"rollout.{act}", params, RolloutSummary)
    if as_json:
        print_object(plain(found))
    elif not quiet:
        click.echo(visible(rolloutshow.summary_line(found)))
    return found
