"""`dorafleet explain`: where the nodes of a dataflow would run, and why not elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dorad.cli.tables import print_object, print_table
from dorafleet.cli.arguments import File

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dorad.dataflow.errors import Problem
    from dorad.dataflow.model import Dataflow
    from dorafleet.coordinator.placement import Decision
    from dorafleet.inventory.model import Cluster

MAX_REASONS = 3
"""Machines with a reason in the table of all nodes; the table of one node shows all."""

EPILOG = """\b
Examples:
  dorafleet explain dataflow.yml                   the machine of every node
  dorafleet explain dataflow.yml detector          for each machine, why or why not
  dorafleet explain dataflow.yml --cluster lab.yml --json | jq '.nodes[] | select(.machine|not)'
\b
Nothing is asked of any machine: labels and capacities are those of the cluster file, and the fleet
is taken to be empty. A rule is one of machine, avoid, labels, devices, gpu, memory, cpu, spread; of
several, the first in this order is shown.
Exit code 0: all nodes asked for have a machine. 1: some are pending, or a file has problems.
"""


def _node_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the nodes of the dataflow that stands before; none if it has problems."""
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
@click.argument("file", metavar="DATAFLOW", type=File(".yml", ".yaml"))
@click.argument("node", required=False, shell_complete=_node_ids)
@click.option(
    "--cluster",
    "cluster_file",
    metavar="FILE",
    type=File(".yml", ".yaml"),
    default="cluster.yml",
    show_default=True,
    help="The machines.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def explain(file: Path, node: str | None, *, cluster_file: Path, as_json: bool) -> int:
    """Show the machine that each node of DATAFLOW, or NODE alone, would run on, and why."""
    from dorafleet.coordinator.placement import Candidate, place
    from dorafleet.coordinator.requirements import problems_of, requirements_of

    dataflow, cluster = _load(file, cluster_file)
    chosen = _chosen(dataflow, node)
    machines = [Candidate(each.id, each.labels, each.capacity) for each in cluster.machines]
    decisions = place(requirements_of(dataflow), machines)
    problems = problems_of(dataflow, machines)
    for problem in problems:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {problem}", err=True)
    if as_json:
        print_object(as_plain((decisions[each] for each in chosen), problems))
    elif node is None:
        print_table(("Node", "Machine", "Why"), [_as_row(each) for each in decisions.values()])
    else:
        rows = [
            (each.machine, each.rule or "chosen", each.reason) for each in decisions[node].verdicts
        ]
        print_table(("Machine", "Rule", "Why"), rows)
    pending = any(decisions[each].machine is None for each in chosen)
    return 1 if pending or problems else 0


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


def _chosen(dataflow: Dataflow, node: str | None) -> list[str]:
    from dorad.dataflow.nearest import did_you_mean

    ids = [each.id for each in dataflow.nodes]
    if node is None:
        return ids
    if node not in ids:
        hint = did_you_mean(node, ids)
        message = f"no node `{node}` in {dataflow.path}"
        raise click.UsageError(message + (f"; {hint}" if hint else ""))
    return [node]


def _as_row(decision: Decision) -> tuple[str, str, str]:
    """Return a line of the table of all nodes."""
    chosen = next((each for each in decision.verdicts if each.rule is None), None)
    if chosen is not None:
        return (decision.node, chosen.machine, chosen.reason)
    reasons = [f"{each.machine}: {each.reason}" for each in decision.verdicts]
    more = len(reasons) - MAX_REASONS
    tail = f"; and {more} more" if more > 0 else ""
    return (decision.node, "pending", "; ".join(reasons[:MAX_REASONS]) + tail)


def as_plain(decisions: Iterable[Decision], problems: Iterable[Problem]) -> dict[str, Any]:
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
        "problems": [str(problem) for problem in problems],
    }
