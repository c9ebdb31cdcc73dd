"""`dorafleet backup` and `dorafleet restore`: the coordinator's store in one file, and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import File, port_option, state_option

if TYPE_CHECKING:
    from pathlib import Path

BACKUP_EPILOG = """\b
Examples:
  dorafleet backup fleet.backup
\b
The coordinator writes the file while it runs. It has all desired states and the audit, not the
token, and a checksum; only the coordinator's user can read it. A file that exists is replaced.
"""

RESTORE_EPILOG = """\b
Examples:
  dorafleet restore fleet.backup --state /srv/fleet
\b
The coordinator must not run, and its folder must have no store yet: move `coordinator.db` away.
Versions and epochs continue far above those of the backup, so none is given twice.
"""


@click.command(epilog=BACKUP_EPILOG)
@click.argument("file", type=File(".backup"))
@state_option
@port_option
def backup(file: Path, *, state: Path, port: int) -> None:
    """Write everything that the coordinator keeps to FILE."""
    entries = asyncio.run(_back_up(file.absolute(), state, port))
    click.echo(f"{file}: {entries} entries")


@click.command(epilog=RESTORE_EPILOG)
@click.argument("file", type=File(".backup"))
@state_option
def restore(file: Path, *, state: Path) -> None:
    """Fill a new store of the coordinator from the backup FILE."""
    entries = asyncio.run(_restore(file, state))
    click.echo(f"{state}: {entries} entries restored")


async def _back_up(file: Path, state: Path, port: int) -> int:
    from dorafleet.coordinator.client import connect
    from dorafleet.coordinator.messages import BackedUp, Backup

    async with connect(state, port) as client:
        done = await client.call("coordinator.backup", Backup(path=str(file)), BackedUp)
        return done.entries


async def _restore(file: Path, state: Path) -> int:
    from dorad.control.errors import ControlError
    from dorafleet.coordinator.service import DATABASE, make_folder
    from dorafleet.store.backup import restore as fill
    from dorafleet.store.sqlite import SqliteStore

    make_folder(state)
    store = await SqliteStore.open(state / DATABASE)
    try:
        return await fill(store, file)
    except OSError as error:
        raise ControlError("refused", f"{file} cannot be read: {error.strerror}") from None
    finally:
        await store.close()
