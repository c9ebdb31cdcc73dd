"""`dora param`: read and set parameters of running nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.select import connect, dataflow_option, select
from dorad.commandline.complete import node_names, param_names
from dorad.commandline.groups import Group
from dorad.commandline.reports import print_note
from dorad.commandline.tables import format_option, print_object, print_table
from dorad.control.paramtext import allowed_text, json_text

if TYPE_CHECKING:
    from dorad.control.messages import Param

COLUMNS = ("Key", "Value", "Type", "Default", "Allowed", "Description")

EPILOG = """\b
Examples:
  dora param list arm
  dora param set arm speed 0.5
  dora param get arm speed
"""

node_argument = click.argument("node", shell_complete=node_names)
key_argument = click.argument("key", shell_complete=param_names)


@click.group("param", cls=Group, epilog=EPILOG)
def param() -> None:
    """Read and set parameters of running nodes."""


LIST_EPILOG = """\b
Examples:
  dora param list arm
  dora param list arm -d demo --format json

--format json prints one object with keys and values.
"""


@param.command("list", epilog=LIST_EPILOG)
@node_argument
@dataflow_option
@format_option
def list_params(node: str, *, dataflow: str | None, style: str) -> None:
    """List the parameters of NODE: declared ones and those that have been set."""
    with connect() as client:
        params = client.params(node, dataflow=select(client, dataflow))
    if style == "json":
        print_object({param.key: param.value for param in params})
    elif params:
        print_table(COLUMNS, map(_as_row, params))
    else:
        click.echo(f"node {node} has no parameters", err=True)


GET_EPILOG = """\b
Examples:
  dora param get arm speed
  test "$(dora param get arm mode)" = '"slow"'
"""


@param.command("get", epilog=GET_EPILOG)
@node_argument
@key_argument
@dataflow_option
def get_param(node: str, key: str, *, dataflow: str | None) -> None:
    """Print the value of the parameter KEY of NODE as JSON."""
    with connect() as client:
        print_object(client.get_param(node, key, dataflow=select(client, dataflow)).value)


SET_EPILOG = """\b
Examples:
  dora param set arm speed 0.5
  dora param set arm mode '"slow"'     text needs its own quotes
  dora param set arm limits '[0, 90]'

The node gets a PARAM_UPDATE event. If the dataflow's file declares the parameter, the value must
have its type and be within its range.
"""


@param.command("set", epilog=SET_EPILOG, context_settings={"ignore_unknown_options": True})
@node_argument
@key_argument
@click.argument("value")
@dataflow_option
def set_param(node: str, key: str, value: str, *, dataflow: str | None) -> None:
    """Set the parameter KEY of NODE to the JSON value VALUE."""
    parsed = parse_json(value, "VALUE")
    with connect() as client:
        result = client.set_param(node, key, parsed, dataflow=select(client, dataflow))
    click.echo(f"set `{key}` = {json_text(result.value)} on node `{node}`")
    if not result.delivered:
        print_note(f"node {node} is not connected; it gets the value when it starts")


DELETE_EPILOG = """\b
Examples:
  dora param delete arm speed

The node gets a PARAM_DELETED event. A declared parameter returns to its default.
"""


@param.command("delete", epilog=DELETE_EPILOG)
@node_argument
@key_argument
@dataflow_option
def delete_param(node: str, key: str, *, dataflow: str | None) -> None:
    """Delete the parameter KEY of NODE."""
    with connect() as client:
        client.delete_param(node, key, dataflow=select(client, dataflow))
    click.echo(f"deleted `{key}` from node `{node}`")


def parse_json(text: str, name: str) -> Any:
    """Return the value of a JSON text. Raises click.UsageError if it is invalid."""
    import msgspec

    try:
        # Stricter than `json`, like the daemon: no NaN, no lone surrogates.
        return msgspec.json.decode(text.encode())
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        quoted = json.dumps(text, ensure_ascii=False)
        hint = f"; write text as '{quoted}'" if text.isprintable() and len(text) < 40 else ""
        raise click.UsageError(f"{name} is not JSON: {error}{hint}") from error


def _as_row(param: Param) -> tuple[str, ...]:
    return (
        param.key,
        json_text(param.value),
        param.type or "",
        json_text(param.default) if param.declared else "",
        allowed_text(param),
        param.description or "",
    )
