"""`dora busy`: leases, which keep a rollout from switching this robot to a new release."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import click

from dorad.cli.select import connect
from dorad.commandline.durations import Duration
from dorad.commandline.groups import Group
from dorad.commandline.reports import print_note
from dorad.commandline.tables import age, format_option, plain, print_lines, print_table
from dorad.control.errors import ControlError
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.client import Client
    from dorad.control.messages import Lease

COLUMNS = ("ID", "Owner", "Age", "Left", "Reason")
DEFAULT_REASON = "dora busy"
RECONNECT_S = 0.2
"""Seconds between attempts to take a lease again after the daemon was restarted."""

EPILOG = """\b
Examples:
  dora busy "drives to the dock" -- ./dock.sh
                                   busy until the command ends; exits with its code
  dora busy "maintenance"          busy until Ctrl-C
  dora busy --ttl 30m "inspection" busy for 30 minutes, without a process
  dora busy list
  dora busy end 4f1c09ab77de       end a lease with a time to live

\b
A lease only delays the start of a switch, at most for the rollout's `busy_max`. Nodes take leases
with `with node.busy("holds a cup"):`.
"""


class BusyGroup(Group):
    """The commands of `dora busy`. A first word that is not a command is the reason of a lease."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without the name of a command they are those of `hold`."""
        if args and args[0] not in (*self.commands, "help", *ctx.help_option_names):
            args = ["hold", *args]
        return super().parse_args(ctx, args)


class HoldCommand(click.Command):
    """The command that holds a lease. The words after `--` are a command to run under it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words before `--`."""
        if "--" in args:
            place = args.index("--")
            args, ctx.obj = args[:place], args[place + 1 :]
            if not ctx.obj:
                raise click.UsageError("there is no command after `--`", ctx)
        return super().parse_args(ctx, args)


@click.group(
    "busy",
    cls=BusyGroup,
    epilog=EPILOG,
    options_metavar="[--ttl DURATION]",
    subcommand_metavar="[REASON] [-- COMMAND...]",
)
def busy() -> None:
    """Delay switches to new releases while this robot must not be interrupted."""


@busy.command("hold", cls=HoldCommand, epilog=EPILOG, hidden=True)
@click.option("--ttl", type=Duration(minimum=1), help="Hold it for this time, without a process.")
@click.argument("reason", required=False)
@click.pass_obj
def hold(command: list[str] | None, reason: str | None, *, ttl: float | None) -> int:
    """Hold a lease with REASON while COMMAND runs, until Ctrl-C, or for a time."""
    if ttl is not None:
        if command:
            raise click.UsageError("give either --ttl or a command")
        with connect() as client:
            lease = client.take_lease(reason or DEFAULT_REASON, ttl)
        click.echo(visible(lease.id))
        return 0
    return _hold(reason or DEFAULT_REASON, command or [])


LIST_EPILOG = """\b
Examples:
  dora busy list
  dora busy list -f json
"""


@busy.command("list", epilog=LIST_EPILOG)
@format_option
def list_leases(*, style: str) -> None:
    """List the leases that keep this robot from switching to a new release."""
    with connect() as client:
        leases = client.leases()
    if style == "json":
        print_lines(map(plain, leases))
    elif leases:
        print_table(COLUMNS, map(_as_row, leases))
    else:
        click.echo("nothing is busy", err=True)


END_EPILOG = """\b
Example:
  dora busy end 4f1c09ab77de

`dora busy list` shows the ids. Only the lease's user and root can end it.
"""


@busy.command("end", epilog=END_EPILOG)
@click.argument("lease", metavar="ID")
def end(lease: str) -> None:
    """End the lease ID, which was taken with --ttl."""
    with connect() as client:
        client.end_lease(lease)


def _hold(reason: str, command: list[str]) -> int:
    """Hold a lease while a command runs, or until Ctrl-C; return the exit code."""
    ended = threading.Event()
    client = connect()
    holder = _Holder(client, reason, ended)
    holder.begin()
    try:
        if not command:
            print_note(f"busy until Ctrl-C: {visible(reason)}")
            ended.wait()
            return 0
        return _run(command)
    finally:
        ended.set()
        holder.close()


def _run(command: list[str]) -> int:
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        raise click.ClickException(f"cannot run {command[0]}: {error.strerror}") from None
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent it SIGINT, too
        return 128 - code if code < 0 else code


class _Holder:
    """Holds a lease in a thread, and takes it again whenever the daemon was restarted."""

    def __init__(self, client: Client, reason: str, ended: threading.Event) -> None:
        self._client = client
        self._reason = reason
        self._ended = ended
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def begin(self) -> None:
        """Take the lease; it holds on return. Raises ControlError."""
        self._stream = self._client.hold_lease(self._reason)
        next(iter(self._stream))
        self._thread.start()

    def close(self) -> None:
        """End the lease."""
        self._client.close()

    def _keep(self) -> None:
        warned = False
        while not self._ended.is_set():
            try:
                for _ in self._stream:
                    warned = False
            except ControlError as error:
                if self._ended.is_set():
                    return
                if not warned:
                    print_note(f"the lease has ended ({error.message}); it is taken again")
                    warned = True
            if self._ended.wait(RECONNECT_S):
                return
            self._again()

    def _again(self) -> None:
        """Take the lease over a new connection; without success the caller tries again."""
        self._client.close()
        with contextlib.suppress(ControlError):
            self._client = connect()
            self._stream = self._client.hold_lease(self._reason)


def _as_row(lease: Lease) -> tuple[str, ...]:
    now = time.time()
    left = "" if lease.expires is None else age(lease.expires - now)
    return lease.id, lease.owner, age(now - lease.since), left, lease.reason
