"""`dorafleet explain`: where the nodes of a dataflow run or would run, and why not elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dorad.commandline.tables import plain, print_object, print_table
from dorad.phrases import first_of
from dorad.terminal import visible
from dorafleet.cli.arguments import File, coordinator_options, json_option
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dorad.dataflow.model import Dataflow
    from dorafleet.coordinator.messages import Explained, ExplainedRobot
    from dorafleet.coordinator.placement import Decision
    from dorafleet.inventory.model import Cluster

MAX_REASONS = 3
"""Machines with a reason in the table of all nodes; the table of one node shows all."""

MAX_PARTS = 2
"""Of `INSTANCE/NAME`."""

EPILOG = """\b
Examples:
  dorafleet explain dataflow.yml                   where its nodes would run if it started now
  dorafleet explain dataflow.yml detector          for each machine, why or why not
  dorafleet explain demo                           where the nodes of a running dataflow are
  dorafleet explain arm                            of a release: the instance of each robot
  dorafleet explain cell1/arm                      where the nodes of one instance are
  dorafleet explain dataflow.yml --cluster lab.yml --json | jq '.nodes[] | select(.machine|not)'
\b
The coordinator answers, with current labels, capacities and running nodes. With --cluster no
machine is contacted: labels and capacities are those of FILE, and no node runs yet.
A rule is one of machine, avoid, labels, accept, devices, gpu, memory, cpu, away, spread,
stays; if several reject a machine, the first in this order is shown. `accept` is the machine's own
dorad.toml.
Exit code 0: all these nodes have a machine. 1: some are pending, or a file has problems.
"""


def _node_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the nodes of the dataflow in the argument before; none if it has problems."""
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.load import load

    file = ctx.params.get("file")
    if file is None:
        return []
    try:
        nodes = load(file).nodes
    except DataflowError:
        return []
    return [CompletionItem(node.id) for node in nodes if node.id.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.argument("file", metavar="FILE|[INSTANCE/]NAME", type=File(".yml", ".yaml"))
@click.argument("node", required=False, shell_complete=_node_ids)
@click.option(
    "--cluster",
    "cluster_file",
    metavar="FILE",
    type=File(".yml", ".yaml"),
    help="Ask no coordinator; use the machines of this file, without running nodes.",
)
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="That of `dora start`: robots may take nodes of some dataflows only.",
)
@json_option
@coordinator_options
def explain(
    file: Path,
    node: str | None,
    *,
    cluster_file: Path | None,
    name: str,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Show the machine of each node, or of NODE alone, and why.

    The nodes are those of the dataflow file FILE, or of the deployment NAME. If that has several
    instances, each robot is shown with its own. Nothing is started.
    """
    explained = (
        _ask(file, name, state, port) if cluster_file is None else _of_files(file, cluster_file)
    )
    if explained.robots:
        if node is not None:
            one = next((each for each in explained.robots if each.instance), None)
            example = "" if one is None else f", such as `{one.instance}/{file}`"
            raise click.UsageError(f"`{file}` has several instances: name one{example}")
        _print_robots(explained.robots, as_json=as_json)
        return 0
    decisions = {each.node: each for each in explained.nodes}
    chosen = _chosen(decisions, file, node)
    for problem in explained.problems:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {visible(problem)}", err=True)
    if as_json:
        print_object(as_plain((decisions[each] for each in chosen), explained.problems))
    elif node is None:
        print_table(("Node", "Machine", "Why"), [_as_row(each) for each in explained.nodes])
    else:
        rows = [
            (each.machine, each.rule or "chosen", each.reason) for each in decisions[node].verdicts
        ]
        print_table(("Machine", "Rule", "Why"), rows)
    pending = any(decisions[each].machine is None for each in chosen)
    return 1 if pending or explained.problems else 0


def _is_name(file: Path) -> bool:
    """Return True for the name of a deployment or of an instance: it is no existing file."""
    return (
        file.suffix not in (".yml", ".yaml")
        and len(file.parts) <= MAX_PARTS
        and not file.is_absolute()
        and not file.exists()
    )


def _ask(file: Path, name: str, state: Path, port: int) -> Explained:
    """Let the coordinator decide. Raises ControlError or DataflowError."""
    from dorad.control.errors import ControlError
    from dorad.dataflow.load import load
    from dorafleet.coordinator.messages import DATAFLOW_EXPLAIN, Explain

    if _is_name(file):
        params = Explain(dataflow=str(file))
    else:
        descriptor = dict(load(file).descriptor)
        params = Explain(descriptor=descriptor, name=name, path=str(file.absolute()))
    try:
        with connect(state, port) as client:
            return client.call(DATAFLOW_EXPLAIN, params)
    except ControlError as error:
        if error.code != "unavailable" or params.descriptor is None:
            raise
        hint = "start one with `dorafleet up cluster.yml`, or use --cluster FILE without one"
        raise ControlError(error.code, error.message, hint) from error


def _of_files(file: Path, cluster_file: Path) -> Explained:
    """Decide by a cluster file and an empty fleet. Raises DataflowError."""
    from dorafleet.coordinator.messages import Explained
    from dorafleet.coordinator.placement import Candidate, place
    from dorafleet.coordinator.requirements import problems_of, requirements_of

    dataflow, cluster = _load(file, cluster_file)
    machines = [Candidate(each.id, each.labels, each.capacity) for each in cluster.machines]
    decisions = place(requirements_of(dataflow), machines)
    problems = problems_of(dataflow, machines)
    return Explained(nodes=[*decisions.values()], problems=[*map(str, problems)])


def _load(file: Path, cluster_file: Path) -> tuple[Dataflow, Cluster]:
    """Read both files. Raises DataflowError with the problems of both."""
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.load import load
    from dorafleet.inventory.load import load as load_cluster

    try:
        dataflow = load(file)
    except DataflowError as first:
        try:
            load_cluster(cluster_file)
        except DataflowError as second:
            raise DataflowError((*first.problems, *second.problems)) from None
        raise
    return dataflow, load_cluster(cluster_file)


def _chosen(decisions: Mapping[str, Decision], file: Path, node: str | None) -> Sequence[str]:
    from dorad.dataflow.nearest import did_you_mean

    if node is None:
        return [*decisions]
    if node not in decisions:
        hint = did_you_mean(node, decisions)
        message = f"no node `{node}` in {file}"
        raise click.UsageError(message + (f"; {hint}" if hint else ""))
    return [node]


def _print_robots(robots: Sequence[ExplainedRobot], *, as_json: bool) -> None:
    if as_json:
        print_object({"nodes": [], "problems": [], "robots": plain(robots)})
        return
    print_table(
        ("Robot", "Instance", "Nodes", "Why"),
        [
            (
                each.robot,
                each.instance or "none",
                first_of(each.nodes, MAX_REASONS) or "-",
                each.reason,
            )
            for each in robots
        ],
    )


def _as_row(decision: Decision) -> tuple[str, str, str]:
    """Return a line of the table of all nodes."""
    chosen = next((each for each in decision.verdicts if each.rule is None), None)
    if chosen is not None:
        return (decision.node, chosen.machine, chosen.reason)
    reasons = (f"{each.machine}: {each.reason}" for each in decision.verdicts)
    return (decision.node, "pending", first_of(reasons, MAX_REASONS, "; "))


def as_plain(decisions: Iterable[Decision], problems: Iterable[str]) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "nodes": [
            {
                "node": decision.node,
                "machine": decision.machine,
                "machines": [
                    {"id": each.machine, "rule": each.rule, "reason": each.reason}
                    for each in decision.verdicts
                ],
            }
            for decision in decisions
        ],
        "problems": [*problems],
    }
