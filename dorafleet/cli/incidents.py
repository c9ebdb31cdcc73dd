"""`dorafleet incidents`: what robots have uploaded, and what they have left out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import click

from dorad.commandline.groups import CommandEntry, LazyGroup
from dorad.commandline.tables import age, plain, print_object, print_table
from dorad.phrases import size_text
from dorad.terminal import local_time, visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.complete import connect_briefly, robot_ids
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from dorafleet.coordinator.incidentmessages import UploadedIncident, UploadedIncidents

EPILOG = """\b
Examples:
  dorafleet incidents                                     the most urgent of each robot first
  dorafleet incidents list --robot arm1 --json
  dorafleet incidents fetch 20260501-101500-3f2a -o dock.mcap
  dorafleet incidents open 20260501-101500-3f2a --with "dora trace paths"
  dorafleet incidents remove 20260501-101500-3f2a

\b
A robot uploads what its black boxes have kept if `[incidents]` in its dorad.toml has a budget:
docs/incidents.md. `dora record incidents` lists what is on the robots themselves.
"""
LIST_EPILOG = """\b
Examples:
  dorafleet incidents list
  dorafleet incidents list --robot arm1
  dorafleet incidents list --json | jq '.incidents[] | select(.state == "left-out") | .why'

\b
STATE: `complete` is here, `partial` has come in part, `waiting` will come, `left-out` does not come
for the reason in the last column, and `removed` was here.
Exit code 1: a robot has left out an incident, or has more of them than it lists.
"""
COLUMNS = ("ROBOT", "DATAFLOW", "INCIDENT", "TIME", "SOURCE", "SIZE", "STATE", "NOTE OR REASON")


class Incidents(LazyGroup):
    """The commands of `dorafleet incidents`."""

    table: ClassVar[dict[str, CommandEntry]] = {
        "list": CommandEntry(
            "dorafleet.cli.incidents:list_", "List incidents, also those that are left out."
        ),
        "fetch": CommandEntry(
            "dorafleet.cli.incidentfetch:fetch", "Write an incident to a recording here."
        ),
        "open": CommandEntry(
            "dorafleet.cli.incidentfetch:open_", "Fetch an incident and run a program on it."
        ),
        "remove": CommandEntry(
            "dorafleet.cli.incidents:remove", "Remove an incident from the coordinator."
        ),
    }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without any, list."""
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["list"]))


@click.group("incidents", cls=Incidents, epilog=EPILOG)
def incidents() -> None:
    """List, fetch, open and remove the incidents that robots have uploaded."""


robot_option = click.option(
    "--robot", metavar="ROBOT", shell_complete=robot_ids, help="Only those of this robot."
)
dataflow_option = click.option("--dataflow", metavar="NAME", help="Only those of this dataflow.")


def complete_ids(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the incidents that are at the coordinator."""
    from click.shell_completion import CompletionItem

    from dorad.commandline.complete import matching
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.incidentmessages import INCIDENTS_UPLOADED

    del ctx, param
    return matching(
        incomplete,
        connect_briefly,
        lambda client: (
            CompletionItem(each.id, help=f"{each.robot} {each.note}".strip())
            for each in client.call(INCIDENTS_UPLOADED, Nothing()).incidents
            if each.state == "complete"
        ),
    )


def incident_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument INCIDENT, --robot and --dataflow to a command."""
    argument = click.argument("incident", metavar="INCIDENT", shell_complete=complete_ids)
    return argument(robot_option(dataflow_option(command)))


@click.command("list", epilog=LIST_EPILOG)
@robot_option
@dataflow_option
@json_option
@coordinator_options
def list_(*, robot: str | None, dataflow: str | None, as_json: bool, state: Path, port: int) -> int:
    """List the incidents of robots, the most urgent of each robot first."""
    from msgspec.structs import replace

    from dorad.control.messages import Nothing
    from dorafleet.coordinator.incidentmessages import INCIDENTS_UPLOADED

    with connect(state, port) as client:
        answer = client.call(INCIDENTS_UPLOADED, Nothing())
    answer = replace(
        answer,
        incidents=[
            each
            for each in answer.incidents
            if robot in (None, each.robot) and dataflow in (None, each.dataflow)
        ],
        robots=[each for each in answer.robots if robot in (None, each.robot)],
    )
    if as_json:
        print_object(plain(answer))
    else:
        _print(answer)
    left_out = any(each.state == "left-out" for each in answer.incidents)
    return 1 if left_out or any(each.left_out for each in answer.robots) else 0


def _print(answer: UploadedIncidents) -> None:
    print_table(COLUMNS, map(_row, answer.incidents))
    used = f"{size_text(answer.used)} of {size_text(answer.limit)} in {answer.folder}"
    click.echo(visible(f"{used}; each stays {age(answer.keep)}"))
    now = time.time()
    for each in answer.robots:
        if each.heard is None:
            heard = "has sent no list since this coordinator leads"
        else:
            spent = f"{size_text(each.spent)} of {size_text(each.per_day)} in 24 hours are spent"
            heard = f"{spent}, as of {age(max(0.0, now - each.heard))} ago"
        left = f"; {each.left_out} more are on it" if each.left_out else ""
        room = f"{size_text(each.used)} of {size_text(answer.per_robot)} here"
        click.echo(visible(f"{each.robot}: {room}; {heard}{left}"))


def _row(each: UploadedIncident) -> tuple[str, ...]:
    place: str = each.state
    if each.state == "partial":
        place = f"partial, {size_text(each.arrived)}"
    return (
        each.robot,
        each.dataflow,
        each.id,
        local_time(each.time, "%Y-%m-%d %H:%M:%S"),
        each.source,
        size_text(each.bytes),
        place,
        each.why or each.note,
    )


@click.command(
    epilog="""\b
Examples:
  dorafleet incidents remove 20260501-101500-3f2a
  dorafleet incidents remove 20260501-101500-3f2a --robot arm1

\b
The robot keeps it, and does not upload it again. The audit has who removed it.
"""
)
@incident_argument
@json_option
@coordinator_options
def remove(
    *,
    incident: str,
    robot: str | None,
    dataflow: str | None,
    as_json: bool,
    state: Path,
    port: int,
) -> None:
    """Remove INCIDENT from the coordinator."""
    from dorafleet.coordinator.incidentmessages import INCIDENTS_REMOVE, UploadedRef

    ref = UploadedRef(id=incident, robot=robot, dataflow=dataflow)
    with connect(state, port) as client:
        removed = client.call(INCIDENTS_REMOVE, ref)
    if as_json:
        print_object(plain(removed))
    else:
        click.echo(visible(f"removed {removed.id} of {removed.robot}"))
