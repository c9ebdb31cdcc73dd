"""`dorafleet authority`: show the fleet's authority, and hand the fleet over to a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.commandline.groups import Group
from dorad.commandline.tables import plain, print_object
from dorad.phrases import first_of
from dorad.terminal import local_time, visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.coordinator import connect, folder_of

if TYPE_CHECKING:
    from dorafleet.coordinator.accessmessages import AuthorityStatus

MAX_NAMED = 20
"""Robots in one line."""

STATUS_EPILOG = """\b
Examples:
  dorafleet authority status
  dorafleet authority status --json
\b
Exit code 0: there is no hand-over, or it is over for all. 1: some trust the old authority only,
have no certificate of the new one yet, or still trust one whose hand-over was cancelled.
"""

HAND_OVER_EPILOG = """\b
Examples:
  dorafleet authority hand-over
  dorafleet authority hand-over --days 60 --root-key /media/safe/root.key
\b
Run it on the coordinator's machine, as root or as the user of the coordinator. It makes a new
authority in the folder `ca`, and signs it with the key of the present root. Robots check that
signature. From their next report on they trust both; once all do, they get certificates of the new
authority. Give each operator a new file: `dorafleet operator add NAME`.
With several coordinators copy the folder `ca` to the others at once.
The hand-over ends with `dorafleet authority finish` or `cancel`, or after --days. A robot that was
away until then must be enrolled again. Called again, the command goes on with the same authority.
"""

FINISH_EPILOG = """\b
Examples:
  dorafleet authority finish
  dorafleet authority finish --force
\b
From then on only the new authority is trusted. Certificates of the old one are refused, and its
keys can be deleted. Exit code 1 if robots or operators were left behind.
"""


CANCEL_EPILOG = """\b
Examples:
  dorafleet authority cancel
\b
From then on only the old authority is trusted, and the new one is never used: its keys can be
deleted. It is refused once a robot was given a certificate of the new authority: finish the
hand-over then. Robots that are away are told when they connect.
Exit code 1 if operators got a certificate of the new authority, which is refused now.
"""


@click.group(cls=Group, epilog=HAND_OVER_EPILOG)
def authority() -> None:
    """Show the authority that signs all certificates of the fleet, or hand over to a new one."""


@authority.command(epilog=STATUS_EPILOG)
@json_option
@coordinator_options
def status(*, as_json: bool, state: Path, port: int) -> int:
    """Show the fleet's authority, and how far a hand-over is."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.accessmessages import AUTHORITY_STATUS

    with connect(state, port) as client:
        progress = client.call(AUTHORITY_STATUS, Nothing())
    if as_json:
        print_object(plain(progress))
    else:
        for line in lines(progress):
            click.echo(visible(line))
    return 1 if progress.old or progress.operators or progress.trusting else 0


@authority.command("hand-over", epilog=HAND_OVER_EPILOG)
@click.option(
    "--days",
    type=click.IntRange(1, 365),
    default=30,
    show_default=True,
    help="Until the hand-over ends by itself.",
)
@click.option(
    "--root-key",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Key of the present root.  [default: in the folder of the authority]",
)
@json_option
@coordinator_options
def hand_over(*, days: int, root_key: Path | None, as_json: bool, state: Path, port: int) -> None:
    """Make a new authority, signed by the present one, and hand the fleet over to it."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import Nothing
    from dorafleet.ca.authority import find_folder, fingerprint_in
    from dorafleet.ca.handover import make_successor, usable_successor
    from dorafleet.coordinator.accessmessages import (
        AUTHORITY_HAND_OVER,
        AUTHORITY_STATUS,
        AuthorityRef,
    )

    folder = folder_of(state) / "ca"
    with connect(state, port) as client:
        now = client.call(AUTHORITY_STATUS, Nothing())
        if now.ends is not None and now.finished is None and now.cancelled is None:
            raise ControlError(
                "conflict",
                f"the hand-over to {now.next[:16]} is not finished",
                "`dorafleet authority status` shows how far it is",
            )
        try:
            present = find_folder(folder, now.fingerprint)
        except PermissionError:
            raise ControlError(
                "refused",
                f"this user may not read {folder}",
                "run the command as root, or as the user of the coordinator",
            ) from None
        if present is None:
            raise ControlError(
                "not-found",
                f"{folder} does not have the fleet's authority {now.fingerprint[:16]}",
                "run the command on the coordinator's machine, with its `--state` if it has one",
            )
        made = usable_successor(folder, present)
        wanted = (
            make_successor(folder, present, days, root_key)
            if made is None
            else fingerprint_in(made)
        )
        status_now = client.call(AUTHORITY_HAND_OVER, AuthorityRef(fingerprint=wanted))
    if as_json:
        print_object(plain(status_now))
        return
    for line in lines(status_now):
        click.echo(visible(line))
    click.echo(
        f"The new keys are in {folder / wanted[:16]}: keep a copy of {folder}, give it to every "
        "coordinator of the fleet, and keep the new root.key elsewhere",
        err=True,
    )


@authority.command(epilog=FINISH_EPILOG)
@click.option("--force", is_flag=True, help="Leave robots and operators behind that lack it.")
@json_option
@coordinator_options
def finish(*, force: bool, as_json: bool, state: Path, port: int) -> int:
    """End a hand-over: trust only the new authority."""
    from dorafleet.coordinator.accessmessages import AUTHORITY_FINISH, AuthorityFinish

    with connect(state, port) as client:
        done = client.call(AUTHORITY_FINISH, AuthorityFinish(force=force))
    if as_json:
        print_object(plain(done))
    else:
        click.echo(f"the authority of the fleet is {visible(done.fingerprint[:16])} now")
        for robot in done.robots:
            command = f"dorafleet enrol CLUSTER.yml {robot} --again"
            click.echo(visible(f"{robot} was left behind: `{command}`"), err=True)
        for name in done.operators:
            command = f"dorafleet operator add {name}"
            click.echo(visible(f"operator {name} was left behind: `{command}`"), err=True)
    return 1 if done.robots or done.operators else 0


@authority.command(epilog=CANCEL_EPILOG)
@json_option
@coordinator_options
def cancel(*, as_json: bool, state: Path, port: int) -> int:
    """Cancel a hand-over: trust only the old authority again."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.accessmessages import AUTHORITY_CANCEL

    with connect(state, port) as client:
        done = client.call(AUTHORITY_CANCEL, Nothing())
    if as_json:
        print_object(plain(done))
    else:
        click.echo(f"the authority of the fleet stays {visible(done.fingerprint[:16])}")
        if done.robots:
            named = first_of(done.robots, MAX_NAMED)
            click.echo(visible(f"these robots are told once they are connected: {named}"), err=True)
        for name in done.operators:
            click.echo(visible(f"operator {name}: {_again(name)}"), err=True)
    return 1 if done.operators else 0


def _again(operator: str) -> str:
    return f"the new file is refused: use the one before, or `dorafleet operator add {operator}`"


def lines(status: AuthorityStatus) -> list[str]:
    """Return the fleet's authority and its hand-over in lines."""
    shown = [f"authority {status.fingerprint}"]
    if status.ends is None:
        return shown
    if status.cancelled is not None:
        shown.append(f"the hand-over to {status.next} was cancelled on {_day(status.cancelled)}")
        if status.trusting:
            left = first_of(status.trusting, MAX_NAMED)
            shown.append(f"still trust that one, until they connect: {left}")
        return shown + [f"operator {each}: {_again(each)}" for each in status.operators]
    if status.finished is None:
        shown.append(f"hands over to {status.next}, until {_day(status.ends)}")
    else:
        shown.append(f"handed over by {status.previous}, on {_day(status.finished)}")
    for names, what in (
        (status.waiting, "trust only the old authority"),
        (status.old, "have no certificate of the new one"),
        ([f"operator {each}" for each in status.operators], "have no certificate of the new one"),
    ):
        if names:
            shown.append(f"{what}: {first_of(names, MAX_NAMED)}")
    if status.finished is None and not (status.old or status.operators):
        shown.append(
            "all have a certificate of it: `dorafleet authority finish` ends the hand-over"
        )
    return shown


def _day(seconds: float) -> str:
    return local_time(seconds, "%Y-%m-%d")
