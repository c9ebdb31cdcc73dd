"""`dorafleet access`, `revoke`, `operator` and `token`: who may use the coordinator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from dorad.commandline.groups import Group
from dorad.commandline.tables import plain, print_lines, print_object, print_table
from dorad.control.tls import Role
from dorad.terminal import local_time, visible, visible_lines
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.complete import robot_ids
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from dorafleet.coordinator.accessmessages import Grant, Kind

role_option = click.option(
    "--role",
    type=click.Choice(get_args(Role)),
    required=True,
    help="viewer: read. operator: also start, stop and change dataflows. admin: everything.",
)

ACCESS_EPILOG = """\b
Examples:
  dorafleet access
  dorafleet access --json
"""

REVOKE_EPILOG = """\b
Examples:
  dorafleet revoke arm1
  dorafleet revoke --operator ann
  dorafleet revoke --token panel
\b
The coordinator refuses its certificate or token from then on, and closes its connections. Dataflows
on a robot keep running. `dorafleet enrol` admits a robot again, with a new key.
"""

ADD_EPILOG = """\b
Examples:
  dorafleet operator add ann --role operator --output ann.pem
\b
The file has Ann's key, her certificate and the fleet's authority. Send it to her over a secure
channel. In ~/.config/dora/config.yml it is both `certificate` and `ca` of `coordinator`.
"""

CREATE_EPILOG = """\b
Examples:
  dorafleet token create panel --role viewer --days 30 > panel.token
\b
A client sends the token as `Authorization: Bearer TOKEN`. The coordinator keeps only its hash.
"""


@click.command(epilog=ACCESS_EPILOG)
@json_option
@coordinator_options
def access(*, as_json: bool, state: Path, port: int) -> None:
    """List the robots, operators and tokens that may connect to the coordinator."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.accessmessages import ACCESS_LIST

    with connect(state, port) as client:
        grants = client.call(ACCESS_LIST, Nothing()).grants
    if as_json:
        print_lines(plain(grant) for grant in grants)
    else:
        print_table(("Kind", "Name", "Role", "Until"), map(_as_row, grants))


@click.command(epilog=REVOKE_EPILOG)
@click.argument("name", shell_complete=robot_ids)
@click.option("--operator", "kind", flag_value="operator", help="Revoke the operator NAME.")
@click.option("--token", "kind", flag_value="token", help="Revoke the token NAME.")
@click.option(
    "--robot",
    "kind",
    flag_value="robot",
    default="robot",
    help="Revoke the robot NAME (the default).",
)
@json_option
@coordinator_options
def revoke(name: str, *, kind: Kind, as_json: bool, state: Path, port: int) -> None:
    """Revoke the robot NAME, or an operator or a token, and close its connections."""
    from dorafleet.coordinator.accessmessages import ACCESS_REVOKE, Revoke

    with connect(state, port) as client:
        done = client.call(ACCESS_REVOKE, Revoke(kind=kind, name=name))
    if as_json:
        print_object({"kind": kind, "name": name, **plain(done)})
        return
    closed = done.connections
    click.echo(
        f"{kind} {name} is revoked; "
        f"{'1 connection was' if closed == 1 else f'{closed} connections were'} closed"
    )


@click.group(cls=Group, epilog=ADD_EPILOG)
def operator() -> None:
    """Create certificates for operators."""


@operator.command(epilog=ADD_EPILOG)
@click.argument("name")
@role_option
@click.option("--days", type=click.IntRange(1), default=365, show_default=True, help="Validity.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write, which must not exist; `-` prints it.  [default: NAME.pem]",
)
@coordinator_options
def add(name: str, *, role: Role, days: int, output: Path | None, state: Path, port: int) -> None:
    """Write a key and a certificate for the operator NAME to a file."""
    from dorafleet.coordinator.accessmessages import OPERATOR_ADD, OperatorAdd

    params = OperatorAdd(name=name, role=role, days=days)
    if output is not None and str(output) == "-":
        with connect(state, port) as client:
            click.echo(visible_lines(client.call(OPERATOR_ADD, params).pem), nl=False)
        return
    path = output or Path(f"{name}.pem")
    # Open the file before the certificate is created: otherwise the certificate could be lost.
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(number, "w") as file, connect(state, port) as client:
            bundle = client.call(OPERATOR_ADD, params)
            file.write(bundle.pem)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    click.echo(f"{path}: {role} {name}, until {_day(bundle.expires)}")


@click.group(cls=Group, epilog=CREATE_EPILOG)
def token() -> None:
    """Create tokens for programs."""


@token.command(epilog=CREATE_EPILOG)
@click.argument("name")
@role_option
@click.option("--days", type=click.IntRange(1), required=True, help="Validity.")
@coordinator_options
def create(name: str, *, role: Role, days: int, state: Path, port: int) -> None:
    """Print a new token with the name NAME."""
    from dorafleet.coordinator.accessmessages import TOKEN_CREATE, TokenCreate

    with connect(state, port) as client:
        params = TokenCreate(name=name, role=role, days=days)
        click.echo(visible(client.call(TOKEN_CREATE, params).token))


def _as_row(grant: Grant) -> tuple[str, str, str, str]:
    until = "revoked" if grant.revoked else _day(grant.expires)
    return (grant.kind, grant.name, grant.role or "-", until)


def _day(seconds: float) -> str:
    return local_time(seconds, "%Y-%m-%d")
