"""`dora node`: inspect and change the nodes of running dataflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dorad.cli.curves import read_history
from dorad.cli.node_view import as_json, as_row, columns_for, detail_json, detail_lines
from dorad.cli.select import connect, dataflow_option, machine_option, select, warn_missing
from dorad.commandline.complete import input_names, node_names, topic_names
from dorad.commandline.durations import Duration
from dorad.commandline.files import DataflowFile
from dorad.commandline.groups import Group
from dorad.commandline.reports import print_changes, print_warning
from dorad.commandline.tables import format_option, print_lines, print_object, print_table
from dorad.terminal import visible

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dora node list
  dora node info camera
  dora node restart camera --grace 2s
  dora node connect camera/image viewer/image
"""

node_argument = click.argument("node", shell_complete=node_names)
yaml_option = click.option(
    "--from-yaml",
    "file",
    type=DataflowFile(),
    required=True,
    metavar="FILE",
    help="File with one node, written like an entry of `nodes:`.",
)
grace_option = click.option(
    "--grace",
    type=Duration(),
    metavar="DURATION",
    help="Time until SIGTERM; SIGKILL follows.",
)


@click.group("node", cls=Group, epilog=EPILOG)
def node() -> None:
    """Inspect and change the nodes of a running dataflow."""


LIST_EPILOG = """\b
Examples:
  dora node list                       the nodes of all running dataflows
  dora node list -d demo --format json
  dora node list -d demo -q
  dora node list --machine arm1        of a fleet, through its coordinator
"""


@node.command("list", epilog=LIST_EPILOG)
@dataflow_option
@format_option
@machine_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the ids of the nodes.")
def list_nodes(*, dataflow: str | None, style: str, machine: str | None, quiet: bool) -> None:
    """List the nodes of one dataflow, or of all running dataflows."""
    from dorad.control.messages import NODE_LIST, Ref

    with connect() as client:
        answer = client.call(NODE_LIST, Ref(dataflow=dataflow))
    warn_missing(answer.missing)
    nodes = [info for info in answer.nodes if machine in (None, info.machine)]
    columns = columns_for(nodes, of_all=dataflow is None)
    if quiet:
        for info in nodes:
            click.echo(visible(info.node))
    elif style == "json":
        print_lines(as_json(info, columns) for info in nodes)
    else:
        print_table(columns, (as_row(info, columns) for info in nodes))


INFO_EPILOG = """\b
Examples:
  dora node info camera
  dora node info camera -d demo --format json
"""


@node.command("info", epilog=INFO_EPILOG)
@node_argument
@dataflow_option
@format_option
def info_node(node: str, *, dataflow: str | None, style: str) -> None:
    """Show the inputs, outputs, restart policy and resource use of NODE."""
    with connect() as client:
        uuid = select(client, dataflow)
        detail = client.node_info(node, dataflow=uuid)
        history = read_history(client, uuid, node)
    if style == "json":
        print_object(detail_json(detail, history))
    else:
        for line in detail_lines(detail, history):
            click.echo(visible(line))


def _definition(file: Path) -> dict[str, Any]:
    """Return the node defined in a file; print its warnings."""
    from dorad.dataflow.load import load_node

    definition, warnings = load_node(file)
    for warning in warnings:
        print_warning(str(warning))
    return definition


ADD_EPILOG = """\b
Examples:
  dora node add --from-yaml recorder.yml
  dora node add -d demo --from-yaml recorder.yml

\b
recorder.yml:
  id: recorder
  path: recorder.py
  inputs:
    image: camera/image
"""


@node.command("add", epilog=ADD_EPILOG)
@yaml_option
@dataflow_option
def add_node(*, file: Path, dataflow: str | None) -> None:
    """Add a node to a running dataflow and start it."""
    definition = _definition(file)
    with connect() as client:
        result = client.add_node(definition, dataflow=select(client, dataflow))
    click.echo(f"added node `{definition['id']}`")
    print_changes(result.changes)


REMOVE_EPILOG = """\b
Examples:
  dora node remove recorder
  dora node remove recorder --grace 2s

Receivers of its outputs get INPUT_CLOSED.
"""


@node.command("remove", epilog=REMOVE_EPILOG)
@node_argument
@dataflow_option
@grace_option
def remove_node(node: str, *, dataflow: str | None, grace: float | None) -> None:
    """Stop NODE and remove it and its edges from its dataflow."""
    with connect() as client:
        result = client.remove_node(node, dataflow=select(client, dataflow), grace=grace)
    click.echo(f"removed node `{node}`")
    print_changes(result.changes)


REPLACE_EPILOG = """\b
Examples:
  dora node replace filter --from-yaml faster_filter.yml

The new node starts first. Once it is ready, it takes over the inputs of the old one, with all
messages that wait in them. It must have the same inputs, and all outputs that other nodes receive.
"""


@node.command("replace", epilog=REPLACE_EPILOG)
@node_argument
@yaml_option
@dataflow_option
@grace_option
def replace_node(node: str, *, file: Path, dataflow: str | None, grace: float | None) -> None:
    """Replace NODE by another node without losing messages."""
    definition = _definition(file)
    with connect() as client:
        result = client.replace_node(
            node, definition, dataflow=select(client, dataflow), grace=grace
        )
    click.echo(f"replaced node `{node}`")
    print_changes(result.changes)


CONNECT_EPILOG = """\b
Examples:
  dora node connect camera/image viewer/image
  dora node connect planner/map viewer/map --latched

The options are the same as those of an input in the dataflow file.
"""


@node.command("connect", epilog=CONNECT_EPILOG)
@click.argument("source", metavar="NODE/OUTPUT", shell_complete=topic_names)
@click.argument("target", metavar="NODE/INPUT", shell_complete=input_names)
@click.option("--queue-size", type=int, metavar="N", help="Number of messages that may wait.")
@click.option("--queue-policy", metavar="POLICY", help="drop_oldest, backpressure or latest.")
@click.option(
    "--input-timeout",
    type=float,
    metavar="SECONDS",
    help="Silence after which it is broken.",
)
@click.option("--latched", is_flag=True, default=None, help="Receive the last message first.")
@click.option("--max-rate-hz", type=float, metavar="HZ", help="Maximum messages a second.")
@dataflow_option
def connect_nodes(source: str, target: str, *, dataflow: str | None, **options: Any) -> None:
    """Connect an output of one node to an input of another."""
    given = {name: value for name, value in options.items() if value is not None}
    with connect() as client:
        result = client.connect(source, target, options=given, dataflow=select(client, dataflow))
    click.echo(f"{source} -> {target}")
    print_changes(result.changes)


DISCONNECT_EPILOG = """\b
Examples:
  dora node disconnect camera/image viewer/image

The receiver gets INPUT_CLOSED.
"""


@node.command("disconnect", epilog=DISCONNECT_EPILOG)
@click.argument("source", metavar="NODE/OUTPUT", shell_complete=topic_names)
@click.argument("target", metavar="NODE/INPUT", shell_complete=input_names)
@dataflow_option
def disconnect_nodes(source: str, target: str, *, dataflow: str | None) -> None:
    """Remove an edge."""
    with connect() as client:
        result = client.disconnect(source, target, dataflow=select(client, dataflow))
    click.echo(f"{source} -x- {target}")
    print_changes(result.changes)


RESTART_EPILOG = """\b
Examples:
  dora node restart camera
  dora node restart camera --grace 500ms

This ignores its restart policy. Meanwhile, messages to it wait in its inputs. A node that has ended
is started again, and the nodes that it feeds receive from it again.
"""


@node.command("restart", epilog=RESTART_EPILOG)
@node_argument
@dataflow_option
@grace_option
def restart_node(node: str, *, dataflow: str | None, grace: float | None) -> None:
    """Restart NODE. The other nodes keep running."""
    with connect() as client:
        client.restart_node(node, dataflow=select(client, dataflow), grace=grace)
    click.echo(f"restarted node `{node}`")


STOP_EPILOG = """\b
Examples:
  dora node stop recorder
  dora node stop recorder --grace 2s

Its restart policy does not restart it. Receivers of its outputs get INPUT_CLOSED.
"""


@node.command("stop", epilog=STOP_EPILOG)
@node_argument
@dataflow_option
@grace_option
def stop_node(node: str, *, dataflow: str | None, grace: float | None) -> None:
    """Stop NODE. The other nodes keep running."""
    with connect() as client:
        client.stop_node(node, dataflow=select(client, dataflow), grace=grace)
    click.echo(f"stopped node `{node}`")
