"""`dorafleet release trust`: which keys machines accept releases from."""

from __future__ import annotations

import datetime
import getpass
import re
import socket
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import OverSsh, over_ssh

if TYPE_CHECKING:
    from dorafleet.inventory.model import Machine
    from dorafleet.release.signingkey import SigningKey

EPILOG = """\b
Examples:
  dorafleet release trust cluster.yml                      the key of your SSH agent
  dorafleet release trust cluster.yml --key bob.pub --name bob@example.org
  dorafleet release trust cluster.yml --key bob.pub --until 2027-06-30
  dorafleet release trust cluster.yml --revoke --key bob.pub
\b
The command adds the key to /etc/dorad/allowed_signers, or with --revoke to
/etc/dorad/revoked_signers, on each machine. For a key that is trusted already it replaces name and
last day; without --until there is no last day then. The last day counts until 24:00 in UTC.
The ssh user must be root, or able to sudo without a password. A machine accepts and stages no
release that a revoked key has signed; running dataflows continue.
Exit code 0: all machines have it. 1: some do not.
"""

MAX_SIGNER = 200
"""Characters of a signer's name."""

_SIGNER = re.compile(f"[A-Za-z0-9_.@+-]{{1,{MAX_SIGNER}}}")


@click.command(epilog=EPILOG)
@over_ssh()
@click.option("--key", help="A file, or a fingerprint or comment of a key of the SSH agent.")
@click.option("--name", help="Name of the signer.  [default: the key's comment, or USER@HOST]")
@click.option("--until", metavar="YYYY-MM-DD", help="Last day of the key, in UTC.")
@click.option("--revoke", is_flag=True, help="Never accept this key again.")
def trust(
    over: OverSsh, *, key: str | None, name: str | None, until: str | None, revoke: bool
) -> int:
    """Let the machines in FILE accept releases that a key has signed."""
    from dorafleet.cli.progress import Reporter, check_outcomes
    from dorafleet.release.signingkey import choose

    if revoke and (name or until):
        raise click.UsageError("--revoke needs only --key")
    if revoke and key is None:
        raise click.UsageError("--revoke needs --key")
    chosen = choose(key, public=True)
    line = chosen.public if revoke else signer_line(chosen, name, until)

    async def work(machine: Machine) -> str:
        return await trust_key(machine, line, revoke=revoke, accept_new=over.accept_new)

    with Reporter(over.ids, 0) as reporter:
        outcomes = over.run(work, reporter.outcome)
    check_outcomes(outcomes)
    return 0


async def trust_key(
    machine: Machine, line: str, *, revoke: bool = False, accept_new: bool = False
) -> str:
    """Let a machine trust a key, or never again; return what it says. Raises SshError."""
    from dorafleet.robot.commands import USER_ID, agent_release, as_root
    from dorafleet.robot.facts import user_id
    from dorafleet.ssh.connection import MAX_LINE, connect
    from dorafleet.ssh.errors import Code, SshError

    async with connect(machine, accept_new=accept_new) as robot:
        uid = user_id(await robot.check(USER_ID))
        command = as_root(agent_release("revoke" if revoke else "trust"), uid)
        done = await robot.run(command, given=f"{line}\n".encode())
    if done.code:
        raise SshError(Code.FAILED, f"it does not take the key: {done.last_line}")
    return done.stdout.strip()[:MAX_LINE] or "done"


def signer_line(key: SigningKey, name: str | None = None, until: str | None = None) -> str:
    """Return the line of `allowed_signers` for a key. Raises click.UsageError."""
    from dorad.release.signature import NAMESPACE

    # A comment such as `Ada Lovelace (laptop)` says more than the machine where this runs.
    words = "-".join(re.findall(r"[A-Za-z0-9_.@+-]+", key.comment))[:MAX_SIGNER]
    principal = name or words or f"{getpass.getuser()}@{socket.gethostname()}"
    if not _SIGNER.fullmatch(principal):
        raise click.UsageError(
            f"{principal[:100]!r} cannot be the name of a signer; give one with --name"
        )
    options = [f'namespaces="{NAMESPACE}"']
    if until is not None:
        options.append(f'valid-before="{_end_of(until, datetime.datetime.now(datetime.UTC))}"')
    return f"{principal} {','.join(options)} {key.public}"


def _end_of(day: str, now: datetime.datetime) -> str:
    """Return the end of a day in UTC, as `allowed_signers` has it."""
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
            raise ValueError
        end = datetime.date.fromisoformat(day) + datetime.timedelta(days=1)
    except (ValueError, OverflowError):
        raise click.UsageError(f"--until: {day!r} is not a date such as 2027-06-30") from None
    if end <= now.date():
        raise click.UsageError(f"--until: {day} is over; `--revoke` ends a key at once")
    return f"{end:%Y%m%d}000000Z"
