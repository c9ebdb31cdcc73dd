"""`dorafleet plan`, and the commands that start, follow and undo a rollout."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.tables import plain, print_lines, print_object, print_table
from dorad.terminal import visible
from dorafleet.cli.arguments import File, coordinator_options, json_option
from dorafleet.cli.coordinator import connect, targets_of
from dorafleet.cli.releaseoptions import release_argument, store_option
from dorafleet.cli.rolloutoptions import request_of, rollout_options
from dorafleet.cli.rolloutshow import ROBOT_COLUMNS, robot_row
from dorafleet.cli.rolloutstatus import (
    Chosen,
    act_on,
    number_argument,
    read_status,
    reason_option,
)
from dorafleet.rollout import plantext

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.rollout.messages import RolloutNew, RolloutPlan, RolloutSummary

LOOK_S = 0.5
"""Seconds between two looks at an instance that goes back."""
ENDED = frozenset({"back", "stuck", "refused", "lost", "left", "removed"})
"""States of robots that have gone back, or do not."""

REACHED = frozenset({"succeeded", "settled", "awaiting_promotion"})
BACK = frozenset({"reverted"})
"""Phases that are the end that was asked for: of a rollout, and of an undo."""

START_EPILOG = """\b
Examples:
  dorafleet rollout start arm --dry-run
  dorafleet rollout start arm@4 --label zone=hall --canary 2 --max-parallel 5
  dorafleet rollout start arm --strategy night.yml --budget cell=1 --detach
  dorafleet rollout start cell --scope each:cell --max-parallel 1
  dorafleet rollout start arm --json | jq -c 'select(.event == "end")'
\b
The coordinator drives the rollout, even after this command has ended. While the command follows the
rollout, it sends files over SSH to the machines of the cluster file. Robots that SSH does not reach
get them from the coordinator, to which the command uploads them once; --upload does that first.
Ctrl-C ends only this command.
Exit code 0: all reachable robots have the release. 1: the rollout was refused, failed or reverted.
"""
PLAN_EPILOG = """\b
Examples:
  dorafleet plan arm
  dorafleet plan arm@4 --robots arm1,arm2 --canary 0
  dorafleet plan cell --scope each:cell
  dorafleet plan arm --json | jq '.changes[0].replaced'
\b
The command changes nothing. It uses the coordinator's current knowledge of the robots.
Exit code 0: the rollout can be started, or no robot has to change. 1: it would be refused.
"""
FOLLOW_EPILOG = """\b
Examples:
  dorafleet rollout follow            the newest
  dorafleet rollout follow 12 --json
\b
If this machine has the release, the command sends it to robots that wait for files. Several
commands may follow a rollout at once.
Exit code 0: all reachable robots have the release. 1: the rollout has failed, or was reverted.
"""
UNDO_EPILOG = """\b
Examples:
  dorafleet rollout undo 12
  dorafleet rollout undo --reason "grip slips" --detach
  dorafleet rollout undo 12 --all-at-once
  dorafleet rollout undo cell1/pick              only this instance; the others keep the release
\b
Every robot switches back to its release before this rollout, with the same limits as the rollout;
--max-parallel sets another one. --all-at-once ignores the disruption budget, too, but still waits
for robots that must not be interrupted. Both also change the pace of an undo that has begun.
No robot goes back to the undone release by itself. Only the newest rollout can be undone.
Exit code 0: all robots have switched back. 1: some have not, and are named.
"""

cluster_option = click.option(
    "--cluster",
    metavar="FILE",
    type=File(".yml", ".yaml"),
    default="cluster.yml",
    show_default=True,
    help="The machines, to send them files.",
)
detach_option = click.option("--detach", is_flag=True, help="Do not follow it.")
upload_option = click.option(
    "--upload",
    "uploads",
    is_flag=True,
    help="First leave the files with the coordinator, which sends them to robots.",
)


@click.command(epilog=PLAN_EPILOG)
@release_argument("release")
@rollout_options
@store_option
@json_option
@coordinator_options
def plan(
    release: str, *, store: Path | None, as_json: bool, state: Path, port: int, **given: Any
) -> None:
    """Show exactly what a rollout of RELEASE would change on each robot."""
    request = request_of(release, given)
    with connect(state, port) as client:
        planned = _plan(client, request, store)
    if planned is not None:
        print_plan(planned, as_json=as_json)


@click.command(epilog=START_EPILOG)
@release_argument("release")
@rollout_options
@click.option("--dry-run", is_flag=True, help="Show what would change, as `dorafleet plan` does.")
@detach_option
@upload_option
@cluster_option
@store_option
@json_option
@coordinator_options
def start(
    release: str,
    *,
    dry_run: bool,
    detach: bool,
    uploads: bool,
    cluster: Path,
    store: Path | None,
    as_json: bool,
    state: Path,
    port: int,
    **given: Any,
) -> int:
    """Start a rollout of RELEASE and follow it."""
    return run_rollout(
        request_of(release, given),
        store,
        cluster,
        dry_run=dry_run,
        detach=detach,
        uploads=uploads,
        as_json=as_json,
        state=state,
        port=port,
    )


def run_rollout(
    request: RolloutNew,
    store: Path | None,
    cluster: Path,
    *,
    dry_run: bool,
    detach: bool,
    uploads: bool,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Plan a rollout, start it unless `dry_run`, and follow it; return the exit code."""
    import msgspec

    from dorafleet.cli.releaseoptions import open_store
    from dorafleet.cli.releaseupload import upload_now
    from dorafleet.cli.rolloutfollow import run
    from dorafleet.cli.rolloutsend import sender_for
    from dorafleet.rollout.messages import ROLLOUT_START

    with connect(state, port) as client:
        planned = _plan(client, request, store)
        if planned is None:
            return 0
        if dry_run:
            print_plan(planned, as_json=as_json)
            return 0
        if uploads:
            releases = open_store(store)
            bundle = releases.find(planned.release.id)
            upload_now(client, targets_of(state, port), bundle, releases, as_json=as_json)
        sender = sender_for(store, planned.release.id, cluster)
        # By its id: another release of the name may have been registered since the plan.
        wanted = msgspec.structs.replace(
            request, release=planned.release.id, if_version=planned.version
        )
        summary = client.call(ROLLOUT_START, wanted)
    if left_out := plantext.left_out_line(planned):
        click.echo(visible(left_out), err=True)
    if not as_json:
        for each in planned.supersedes:
            click.echo(f"rollout {each} is superseded")
        click.echo(visible(f"rollout {summary.rollout} has started"))
    if detach:
        if as_json:
            print_object(plain(summary))
        return 0
    targets = targets_of(state, port)
    return run(targets, summary.rollout, sender, as_json=as_json, good=REACHED)


@click.command(epilog=FOLLOW_EPILOG)
@number_argument
@cluster_option
@store_option
@json_option
@coordinator_options
def follow(
    chosen: Chosen,
    *,
    cluster: Path,
    store: Path | None,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Follow a rollout to its end, and send files to robots that wait for them."""
    from dorafleet.cli.rolloutfollow import run
    from dorafleet.cli.rolloutsend import sender_for

    if chosen.instance:
        hint = f"`dorafleet rollout status {chosen.instance}/{chosen.dataflow}` shows the instance"
        raise click.UsageError(f"a rollout is followed as a whole; {hint}")
    with connect(state, port) as client:
        summary = read_status(client, chosen).summary
    sender = sender_for(store, summary.release, cluster)
    undone = summary.phase in ("reverting", "revert_incomplete", "reverted")
    good = BACK if undone and _is_undone(summary) else REACHED
    return run(targets_of(state, port), summary.rollout, sender, as_json=as_json, good=good)


@click.command(epilog=UNDO_EPILOG)
@number_argument
@click.option(
    "--max-parallel",
    metavar="N|N%",
    help="Maximum number of robots at a time.  [that of the rollout]",
)
@click.option(
    "--all-at-once",
    is_flag=True,
    help="For emergencies: switch all robots back at once, whatever the budget.",
)
@reason_option
@detach_option
@cluster_option
@store_option
@json_option
@coordinator_options
def undo(
    chosen: Chosen,
    *,
    max_parallel: str | None,
    all_at_once: bool,
    reason: str,
    detach: bool,
    cluster: Path,
    store: Path | None,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Bring all robots of a rollout, or one instance, back to what they had before."""
    from dorafleet.cli.rolloutfollow import run
    from dorafleet.cli.rolloutsend import Sender

    del cluster, store  # what robots had before is still there
    if max_parallel is not None and all_at_once:
        raise click.UsageError("--max-parallel does not go with --all-at-once")
    if chosen.instance and (max_parallel is not None or all_at_once):
        raise click.UsageError("an instance goes back at the pace of its rollout")
    undone = act_on(
        "undo",
        chosen,
        reason,
        state,
        port,
        as_json=as_json and detach,
        quiet=not detach,
        max_parallel=max_parallel,
        all_at_once=all_at_once,
    )
    if detach:
        return 0
    if chosen.instance:
        return _follow_instance(
            chosen._replace(number=undone.rollout), state, port, as_json=as_json
        )
    sender = Sender(None, "", {}, "their former release is no longer on them: roll it out")
    return run(targets_of(state, port), undone.rollout, sender, as_json=as_json, good=BACK)


def _follow_instance(chosen: Chosen, state: Path, port: int, *, as_json: bool) -> int:
    """Wait until the robots of an instance that can be reached are back; return the exit code."""
    with connect(state, port) as client:
        while True:
            rows = read_status(client, chosen).robots
            if not any(row.reachable and (row.goes_back or row.state not in ENDED) for row in rows):
                break
            time.sleep(LOOK_S)
    if as_json:
        print_lines(map(plain, rows))
    else:
        print_table(ROBOT_COLUMNS, [robot_row(row, time.time()) for row in rows])
    return 0 if all(row.state in ("back", "removed", "left") for row in rows) else 1


def print_plan(planned: RolloutPlan, *, as_json: bool) -> None:
    """Print a plan: each robot, then each change once."""
    if as_json:
        print_object(plain(planned))
        return
    rows = [plantext.plan_row(planned, robot) for robot in planned.robots]
    print_table(plantext.PLAN_COLUMNS, rows)
    for place, changes in enumerate(planned.changes):
        robots = [robot.robot for robot in planned.robots if robot.changes == place]
        for line in plantext.change_lines(changes, robots):
            click.echo(visible(line))
    for line in (*plantext.placement_lines(planned), *plantext.file_lines(planned)):
        click.echo(visible(line))
    click.echo(
        f"at most {planned.parallel} at a time, {planned.tolerated} may fail, none of the canaries"
    )
    for number in planned.supersedes:
        click.echo(f"it would supersede rollout {number}")


def _plan(client: Client, request: RolloutNew, store: Path | None) -> RolloutPlan | None:
    """Register the release if this machine has it, and return the plan.

    Print that there is nothing to do, and return None, if all robots have the release.
    """
    import msgspec

    from dorad.control.errors import ControlError
    from dorafleet.rollout.messages import ROLLOUT_PLAN

    registered = _register(client, request.release, store)
    if registered is not None:
        request = msgspec.structs.replace(request, release=registered)
    try:
        return client.call(ROLLOUT_PLAN, request)
    except ControlError as error:
        if error.code != "exists":
            raise
        click.echo(visible(error.message), err=True)
        return None


def _register(client: Client, wanted: str, store: Path | None) -> str | None:
    """Register a release of this machine; return its id, None if it is not here."""
    from dorafleet.cli.releaseoptions import open_store
    from dorafleet.cli.releaseupload import put_of
    from dorafleet.release.errors import BuildError
    from dorafleet.rollout.messages import RELEASE_PUT

    try:
        bundle = open_store(store).find(wanted)
    except BuildError as error:
        if error.code != "not-found":
            raise
        return None
    return client.call(RELEASE_PUT, put_of(bundle)).id


def _is_undone(summary: RolloutSummary) -> bool:
    return summary.reason.startswith("undone by")
