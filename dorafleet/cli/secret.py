"""`dorafleet secret`: give secrets to robots. A value is sealed here, before it is sent."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.commandline.groups import Group
from dorad.commandline.reports import print_note, print_warning
from dorad.commandline.tables import plain, print_lines, print_object, print_table
from dorad.phrases import first_of
from dorad.terminal import local_time, visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.complete import robot_ids
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dorad.control.client import Client
    from dorafleet.coordinator.secretmessages import RobotSecret, Secret, SecretRecipients

STDIN = "-"
ALL = "*"
SETTLE_S = 10.0
"""Seconds to wait for robots that are connected."""
POLL_S = 0.2
PART = 100
"""Robots in one message."""
PART_BYTES = 512 << 10
MAX_NAMED = 5
STATES = {"waiting": "gets it once it can be reached"}

GROUP_EPILOG = """\b
Examples:
  dorafleet secret set api-key --for arm1             a prompt asks for the value
  dorafleet secret set api-key --for zone=hall < key  for robots with a label
  dorafleet secret set tls --all --file key.pem
  dorafleet secret list
  dorafleet secret list api-key --json
  dorafleet secret remove api-key
\b
A node gets its secrets as files in $CREDENTIALS_DIRECTORY if it names them: `secrets: [api-key]`.
"""

SET_EPILOG = """\b
Examples:
  dorafleet secret set api-key --for arm1
  pass show lab/api | dorafleet secret set api-key --for arm1 --for arm2
  dorafleet secret set tls --for zone=hall --file key.pem
\b
The value comes from --file, else from standard input, else from a prompt; never from an argument,
which other users of this machine could see. A file is taken byte by byte; of a single line from
standard input the line feed is removed. A value has 1 to 32768 bytes.
\b
The value is sealed here for each robot that the target names now, by the robot's own public key.
Nothing else keeps it: a robot that joins later, or gets the label later, lacks it until the command
is run again, and `secret list`, `drift` and `doctor` say so. Setting a secret again replaces its
value. Nodes get it at their next start; those that run with the value before are listed.
\b
A robot that has a secret of its own keeps that instead of the one of a label, and the one of a
label instead of the one of all.
Exit code: 0 if the robots that can be reached have it, 1 if a robot cannot get it.
"""

LIST_EPILOG = """\b
Examples:
  dorafleet secret list                     all secrets, without values
  dorafleet secret list api-key             which robots have it
  dorafleet secret list --json | jq -c 'select(.robots[].state != "held")'
\b
Exit code: 0 if all robots have their secrets, 1 if one lacks a secret.
"""

REMOVE_EPILOG = """\b
Examples:
  dorafleet secret remove api-key
  dorafleet secret remove api-key --for arm1      its own; then that of its label counts again
\b
Robots remove it as soon as they can be reached. A node that runs keeps the value until it ends, and
does not start again without it.
"""

target_option = click.option(
    "--for",
    "targets",
    multiple=True,
    metavar="ROBOT|KEY=VALUE",
    shell_complete=robot_ids,
    help="A robot, or a label of robots; may be repeated.",
)


@click.group(cls=Group, epilog=GROUP_EPILOG)
def secret() -> None:
    """Give secrets to robots, sealed for each of them."""


@secret.command("set", epilog=SET_EPILOG)
@click.argument("name")
@target_option
@click.option("--all", "to_all", is_flag=True, help="All robots of the fleet.")
@click.option(
    "--file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File with the value; `-` reads it from standard input.",
)
@json_option
@coordinator_options
def set_(
    name: str,
    *,
    targets: Sequence[str],
    to_all: bool,
    file: Path | None,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Set the secret NAME for robots; again to replace its value."""
    check_name(name)
    wanted = [*dict.fromkeys(targets), *([ALL] if to_all else [])]
    if not wanted:
        raise click.UsageError("--for ROBOT, --for KEY=VALUE or --all is missing")
    value = read_value(file)
    with connect(state, port) as client:
        lacking: dict[str, str] = {}
        for target in wanted:
            lacking |= _seal_and_send(client, name, target, value)
        secrets = _settled(client, name, wanted)
    if as_json:
        print_lines(map(plain, secrets))
    bad = _report(secrets, lacking, as_json=as_json)
    return 1 if bad else 0


@secret.command("list", epilog=LIST_EPILOG)
@click.argument("name", required=False)
@json_option
@coordinator_options
def list_(name: str | None, *, as_json: bool, state: Path, port: int) -> int:
    """List secrets and the robots that have them; never their values."""
    if name is not None:
        check_name(name)
    with connect(state, port) as client:
        secrets = _list(client, name, nodes=name is not None)
    if name is not None and not secrets:
        raise click.ClickException(
            f"there is no secret `{name}` (`dorafleet secret list` lists all)"
        )
    if as_json:
        print_lines(map(plain, secrets))
    elif name is not None:
        columns = ("Robot", "For", "State", "Nodes with the value before")
        print_table(columns, list(_rows_of_robots(secrets)))
    else:
        print_table(("Secret", "For", "Set", "By", "Robots", "Lacking"), map(_row, secrets))
    lack = any(each.state not in ("held", "waiting") for of in secrets for each in of.robots)
    return 1 if lack else 0


@secret.command("remove", epilog=REMOVE_EPILOG)
@click.argument("name")
@target_option
@json_option
@coordinator_options
def remove(name: str, *, targets: Sequence[str], as_json: bool, state: Path, port: int) -> None:
    """Remove the secret NAME from the coordinator and from its robots."""
    from dorafleet.coordinator.secretmessages import SECRET_REMOVE, SecretRef

    check_name(name)
    with connect(state, port) as client:
        for target in dict.fromkeys(targets) or (None,):
            client.call(SECRET_REMOVE, SecretRef(name=name, target=target))
        left = _list(client, name, nodes=False)
    if as_json:
        print_object({"name": name, "left": [plain(each) for each in left]})
        return
    click.echo(f"secret {name} is removed; robots that cannot be reached now remove it later")


def check_name(name: str) -> None:
    """Raise click.UsageError for what is no name of a secret, such as its value."""
    from dorad.dataflow.errors import TextError
    from dorad.dataflow.secrets import check_secret_name

    try:
        check_secret_name(name)
    except TextError as error:
        # It may be a value that was typed in the wrong place: it is not repeated.
        raise click.UsageError(f"the argument NAME {error.message}: {error.hint}") from None


def read_value(file: Path | None) -> bytes:
    """Return the value of a secret: from a file, from standard input, or from a prompt.

    Raises:
        click.ClickException: it cannot be read, or has too few or too many bytes.
    """
    from dorad.boundedfile import read_bounded
    from dorad.dataflow.secrets import MAX_SECRET

    if file is not None and str(file) != STDIN:
        try:
            value = read_bounded(file, MAX_SECRET, pipes=True)
        except OSError as error:
            raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    elif file is None and sys.stdin.isatty():
        text: str = click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True)
        value = text.encode()
    else:
        value = sys.stdin.buffer.read(MAX_SECRET + 2)
        if value.count(b"\n") == 1:
            value = value.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(value) <= MAX_SECRET:
        size = "is empty" if not value else "is too large"
        raise click.ClickException(f"the value {size}; 1 to {MAX_SECRET} bytes are possible")
    return value


def _seal_and_send(client: Client, name: str, target: str, value: bytes) -> Mapping[str, str]:
    """Set a secret for one target; return the robots of it that cannot have it, and why."""
    from dorafleet.coordinator.secretmessages import (
        SECRET_RECIPIENTS,
        SECRET_SET,
        SecretRef,
        SecretSet,
    )

    ref = SecretRef(name=name, target=target)
    recipients = client.call(SECRET_RECIPIENTS, ref)
    if not recipients.keys:
        why = first_of([f"{robot}: {why}" for robot, why in recipients.lacking.items()], MAX_NAMED)
        raise click.ClickException(
            f"no robot is known that the value could be sealed for: {visible(why)}"
            if why
            else f"no robot has the label {visible(target)} now; a value can only be sealed for"
            " robots that are known"
        )
    for keys, sealed in _parts(name, value, recipients):
        part = SecretSet(
            name=name, target=target, version=recipients.version, keys=keys, sealed=sealed
        )
        client.call(SECRET_SET, part)
    for robot, kept in sorted(recipients.others.items()):
        print_note(f"{robot} keeps the value that was set for {visible(kept)}")
    return recipients.lacking


def _parts(
    name: str, value: bytes, recipients: SecretRecipients
) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield keys and sealed values by robot, in parts that fit into one message."""
    from dorad.control.sealed import Purpose, seal

    keys: dict[str, str] = {}
    sealed: dict[str, str] = {}
    for robot, key in recipients.keys.items():
        keys[robot] = key
        sealed[robot] = seal(value, key, Purpose(robot, name, recipients.version))
        size = sum(map(len, sealed.values()))
        if len(sealed) == PART or size + len(sealed[robot]) > PART_BYTES:
            yield keys, sealed
            keys, sealed = {}, {}
    if sealed:
        yield keys, sealed


def _list(client: Client, name: str | None, *, nodes: bool) -> list[Secret]:
    from dorafleet.coordinator.secretmessages import SECRET_LIST, SecretQuery

    listed = client.call(SECRET_LIST, SecretQuery(name=name, nodes=nodes))
    for robot, why in listed.silent.items():
        print_warning(f"{robot} does not say which nodes run with the value before: {visible(why)}")
    return listed.secrets


def _settled(client: Client, name: str, targets: Sequence[str]) -> list[Secret]:
    """Return a secret for these targets, once the robots that are connected have it, or soon."""
    from dorafleet.cli.coordinator import list_robots

    connected = {robot.id for robot in list_robots(client) if robot.state == "connected"}
    deadline = time.monotonic() + SETTLE_S
    while True:
        secrets = [each for each in _list(client, name, nodes=False) if each.target in targets]
        robots = [each for secret in secrets for each in secret.robots]
        waits = any(each.state == "waiting" and each.robot in connected for each in robots)
        if not waits or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return [each for each in _list(client, name, nodes=True) if each.target in targets]


def _report(secrets: Iterable[Secret], lacking: Mapping[str, str], *, as_json: bool) -> bool:
    """Report which robots have a new value; return True if one cannot get it."""
    old: list[str] = []
    bad = dict(lacking)
    for each in secrets:
        held = sum(robot.state == "held" for robot in each.robots)
        waiting = [robot.robot for robot in each.robots if robot.state == "waiting"]
        if not as_json:
            later = f", on its way to {first_of(waiting, MAX_NAMED)}" if waiting else ""
            robots = "1 robot has" if held == 1 else f"{held} robots have"
            click.echo(f"secret {each.name} for {visible(each.target)}: {robots} it{later}")
        bad |= {
            robot.robot: robot.reason
            for robot in each.robots
            if robot.state not in ("held", "waiting")
        }
        old += [f"{robot.robot}: {node}" for robot in each.robots for node in robot.old_nodes]
    for robot, reason in sorted(bad.items()):
        print_warning(f"{robot} does not have it: {visible(reason)}")
    if old and not as_json:
        print_note(
            "nodes get the value at their next start; these run with the one before"
            f" (`dora node restart`): {visible(', '.join(sorted(old)))}"
        )
    return bool(bad)


def _row(each: Secret) -> tuple[str, ...]:
    lack = [robot.robot for robot in each.robots if robot.state not in ("held", "waiting")]
    held = sum(robot.state == "held" for robot in each.robots)
    return (
        each.name,
        each.target or "unknown",
        local_time(each.set_at, "%Y-%m-%d %H:%M") if each.set_at else "-",
        each.set_by or "-",
        f"{held} of {len(each.robots)}",
        first_of(lack, MAX_NAMED) if lack else "-",
    )


def _rows_of_robots(secrets: Iterable[Secret]) -> Iterator[tuple[str, ...]]:
    for each in secrets:
        for robot in each.robots:
            yield robot.robot, each.target or "unknown", _state(robot), _nodes(robot)


def _state(robot: RobotSecret) -> str:
    reason = robot.reason or STATES.get(robot.state, "")
    return f"{robot.state}: {reason}" if reason else robot.state


def _nodes(robot: RobotSecret) -> str:
    return ", ".join(robot.old_nodes) or "-"
