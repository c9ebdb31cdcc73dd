"""`dorafleet deploy` and `history`: say what should run under a name, and how that has changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dorad.commandline.tables import age, plain, print_lines, print_object, print_table
from dorad.phrases import first_of
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.coordinator import connect
from dorafleet.cli.releaseoptions import release_argument, store_option
from dorafleet.cli.rolloutoptions import request_of, rollout_options
from dorafleet.cli.rolloutstart import cluster_option, detach_option, run_rollout, upload_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.control.client import Client
    from dorafleet.coordinator.deploymentmessages import (
        DeploymentInfo,
        DeploymentInstance,
        DeploymentPlan,
        DeploymentRevision,
    )

COLUMNS = ("Deployment", "Source", "Scope", "Instances", "State", "Revision")
INSTANCE_COLUMNS = ("Instance", "Machines", "Runs", "State")
REVISION_COLUMNS = ("Revision", "Ago", "What", "Source", "By")

MAX_INSTANCES = 50
"""Instances that are listed of one deployment; `--json` has all."""

MAX_NAMED = 3
"""Instances of a revision that are named."""
MAX_NAME = 100
"""Characters of a name in an error."""

NEEDS_RELEASE = "a dataflow file runs as one instance, at once: {} needs a release"

DEPLOY_EPILOG = """\b
Examples:
  dorafleet deploy arm@8 --plan
  dorafleet deploy arm@8 --scope each:cell --canary 1
  dorafleet deploy dataflow.yml demo --plan
  dorafleet deploy dataflow.yml demo
\b
RELEASE is rolled out as `dorafleet rollout start` does. FILE is started as `dora start` does: an
inline source, unsigned, whose programs must be on the machines. `deploy` in it says on which.
Exit code 0: it runs; with --plan: it would. 1: refused, failed, or nodes have no machine.
"""
HISTORY_EPILOG = """\b
Examples:
  dorafleet history                      all deployments, and what robots run of their own
  dorafleet history arm                  its instances, and its last revisions
  dorafleet history cell1/arm            one instance
  dorafleet history --json | jq -c 'select(.source == "inline")'
"""


@click.command(epilog=DEPLOY_EPILOG)
@release_argument("source")
@click.argument("name", required=False)
@rollout_options
@click.option("--plan", "dry_run", is_flag=True, help="Show what would change, and start nothing.")
@detach_option
@upload_option
@cluster_option
@store_option
@json_option
@coordinator_options
@click.pass_context
def deploy(
    ctx: click.Context,
    /,
    source: str,
    name: str | None,
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
    """Run the release or the dataflow file SOURCE under NAME on the machines of the fleet."""
    if _is_file(source):
        _refuse_rollout_options(ctx, given | {"uploads": uploads or None})
        return _deploy_file(
            Path(source),
            name,
            dry_run=dry_run,
            detach=detach,
            as_json=as_json,
            state=state,
            port=port,
        )
    if name is not None:
        raise click.UsageError("a release has the name of its dataflow: leave out NAME")
    return run_rollout(
        request_of(source, given),
        store,
        cluster,
        dry_run=dry_run,
        detach=detach,
        uploads=uploads,
        as_json=as_json,
        state=state,
        port=port,
    )


@click.command(epilog=HISTORY_EPILOG)
@click.argument("name", metavar="[[INSTANCE/]NAME]", required=False)
@json_option
@coordinator_options
def history(name: str | None, *, as_json: bool, state: Path, port: int) -> None:
    """List the deployments, or the instances and revisions of one."""
    from dorafleet.coordinator.deploymentmessages import DEPLOYMENT_HISTORY, DeploymentRef

    with connect(state, port) as client:
        listed = read_deployments(client)
        if name is None:
            if as_json:
                print_lines(map(plain, listed))
            else:
                print_deployments(listed)
            return
        each, instances = instances_named(name, listed)
        revisions = []
        if each.source != "local":
            ref = DeploymentRef(name=each.name)
            revisions = client.call(DEPLOYMENT_HISTORY, ref).revisions
    if as_json:
        print_lines(map(plain, revisions))
        return
    _print_instances(each, instances)
    now = time.time()
    print_table(REVISION_COLUMNS, [_revision_row(each, now) for each in revisions])


def read_deployments(client: Client) -> list[DeploymentInfo]:
    """Return the deployments; none of a coordinator of an earlier version."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.deploymentmessages import DEPLOYMENT_LIST

    try:
        return client.call(DEPLOYMENT_LIST, Nothing()).deployments
    except ControlError as error:
        if error.code != "unknown-method":
            raise
        return []


def instances_named(
    name: str, listed: Sequence[DeploymentInfo]
) -> tuple[DeploymentInfo, list[DeploymentInstance]]:
    """Return the deployment, and the instances, that `NAME` or `INSTANCE/NAME` means.

    `ROBOT/NAME` means the part of an instance that is on a robot.

    Raises:
        ControlError: there is none.
    """
    from msgspec.structs import replace

    from dorad.control.errors import ControlError
    from dorad.dataflow.nearest import did_you_mean

    for each in listed:
        if each.name == name:
            return each, each.instances
    part, _, deployment = name.rpartition("/")
    for each in listed:
        if each.name == deployment:
            chosen = [one for one in each.instances if one.instance == part]
            on_robot = [one for one in each.instances if part in one.robots]
            if chosen or on_robot:
                return each, chosen or [replace(on_robot[0], robots=[part])]
    names = [each.name for each in listed]
    names += [f"{one.instance}/{each.name}" for each in listed for one in each.instances]
    hint = did_you_mean(name, names) or "`dorafleet history` lists them"
    raise ControlError("not-found", f"there is no deployment `{name[:MAX_NAME]}`", hint)


def print_deployments(listed: Iterable[DeploymentInfo]) -> None:
    """Print each deployment once."""
    print_table(COLUMNS, map(deployment_row, listed))


def source_text(each: DeploymentInfo) -> str:
    """Return where a deployment comes from, for people."""
    match each.source:
        case "release":
            return f"release {each.label}".rstrip()
        case "inline":
            return "inline, unsigned"
    return "local: the robot's own"


def deployment_row(each: DeploymentInfo) -> tuple[str, ...]:
    """Return a row under `COLUMNS`."""
    by = f" by {each.by}" if each.by else ""
    return (
        each.name,
        source_text(each),
        "-" if each.source == "local" else each.scope,
        str(len(each.instances)),
        each.state,
        f"{each.revision}{by}" if each.revision else "-",
    )


def _print_instances(each: DeploymentInfo, instances: Sequence[DeploymentInstance]) -> None:
    rows = [
        (one.instance, ", ".join(one.robots) or "none", one.release or "-", one.state)
        for one in instances[:MAX_INSTANCES]
    ]
    click.echo(visible(f"{each.name}  {source_text(each)}  scope {each.scope}  {each.state}"))
    if rows:
        print_table(INSTANCE_COLUMNS, rows)
    if (more := len(instances) - len(rows)) > 0:
        click.echo(f"and {more} more instances")
    click.echo()


def _revision_row(each: DeploymentRevision, now: float) -> tuple[str, ...]:
    source = f"release {each.label}" if each.release else f"inline {each.run}"
    what = f"{each.what} {each.rollout}" if each.rollout else each.what
    if each.instances:
        what += f" of {first_of(each.instances, MAX_NAMED)}"
    return (str(each.number), age(max(0.0, now - each.at)), what, source, each.by or "-")


def _is_file(source: str) -> bool:
    """Return True unless a word can only be that of a release."""
    return Path(source).suffix in (".yml", ".yaml") or "/" in source or Path(source).is_file()


def _refuse_rollout_options(ctx: click.Context, given: dict[str, Any]) -> None:
    """Raise click.UsageError for options that an inline source cannot follow."""
    if given["scope"] == "one":
        given["scope"] = None  # as it is
    for param in ctx.command.params:
        key = param.name or ""
        is_given = ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE
        if is_given and given.get(key) not in (None, ()):
            raise click.UsageError(NEEDS_RELEASE.format(param.opts[0]))


def _deploy_file(
    path: Path,
    name: str | None,
    *,
    dry_run: bool,
    detach: bool,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    from dorad.commandline.files import (
        load_dataflow,
        note_unbuilt,
        print_warnings,
        refuse_unsupported,
    )
    from dorad.commandline.startprogress import report_start
    from dorad.control.messages import Start
    from dorafleet.coordinator.deploymentmessages import DEPLOYMENT_PLAN

    dataflow = load_dataflow(path)
    refuse_unsupported(dataflow, placed=True)
    print_warnings(dataflow)
    with connect(state, port) as client:
        if dry_run:
            start = Start(
                descriptor=dict(dataflow.descriptor), path=str(path.absolute()), name=name
            )
            planned = client.call(DEPLOYMENT_PLAN, start)
            _print_plan(planned, as_json=as_json)
            return 1 if planned.pending else 0
        note_unbuilt(dataflow)
        started = client.start(dataflow, name=name)
        if as_json:
            print_object(plain(started))
        else:
            click.echo(visible(f"dataflow start triggered: {started.uuid}"))
        return 0 if detach else report_start(client, started.uuid, quiet=as_json)


def _print_plan(planned: DeploymentPlan, *, as_json: bool) -> None:
    if as_json:
        print_object(plain(planned))
        return
    machines = ", ".join(planned.machines) or "none"
    click.echo(
        visible(f"one instance, {planned.name or 'without a name'}, inline, unsigned: {machines}")
    )
    rows = [(node, machine, "") for node, machine in planned.placement.items()]
    rows += [(node, "none", why) for node, why in planned.pending.items()]
    print_table(("Node", "Machine", "Why"), rows)
    replaces = f"the run {planned.replaces}, which has ended" if planned.replaces else "nothing"
    click.echo(visible(f"it replaces {replaces}"))
