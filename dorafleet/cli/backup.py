"""`dorafleet backup` and `dorafleet restore`: the coordinator's store in one file, and back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import (
    File,
    etcd_ca_option,
    etcd_cert_option,
    etcd_key_option,
    etcd_option,
    port_option,
    state_option,
)
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from dorafleet.store.model import Store

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
  dorafleet restore fleet.backup --etcd http://127.0.0.1:2379
\b
The coordinator must not run, and its store must be empty: move `coordinator.db` away.
Versions and epochs continue far above those of the backup, so none is given twice.
"""


@click.command(epilog=BACKUP_EPILOG)
@click.argument("file", type=File(".backup"))
@state_option
@port_option
def backup(file: Path, *, state: Path, port: int) -> None:
    """Write everything that the coordinator keeps to FILE."""
    from dorafleet.coordinator.messages import BackedUp, Backup

    with connect(state, port) as client:
        done = client.call("coordinator.backup", Backup(path=str(file.absolute())), BackedUp)
    click.echo(f"{file}: {done.entries} entries")


@click.command(epilog=RESTORE_EPILOG)
@click.argument("file", type=File(".backup"))
@state_option
@etcd_option
@etcd_ca_option
@etcd_cert_option
@etcd_key_option
def restore(
    file: Path,
    *,
    state: Path,
    etcd: Sequence[str],
    etcd_ca: Path | None,
    etcd_cert: Path | None,
    etcd_key: Path | None,
) -> None:
    """Fill a new store of the coordinator from the backup FILE."""
    from dorafleet.coordinator.service import make_folder
    from dorafleet.coordinator.storing import open_store

    make_folder(state)
    connect = partial(
        open_store, state, etcd, authority=etcd_ca, certificate=etcd_cert, key=etcd_key
    )
    name, entries = asyncio.run(_restore(file, connect))
    click.echo(f"{name}: {entries} entries restored")


async def _restore(file: Path, connect: Callable[[], Awaitable[Store]]) -> tuple[str, int]:
    from dorad.control.errors import ControlError
    from dorafleet.store.backup import restore as fill

    store = await connect()
    try:
        return store.name, await fill(store, file)
    except OSError as error:
        raise ControlError("refused", f"{file} cannot be read: {error.strerror}") from None
    finally:
        await store.close()
