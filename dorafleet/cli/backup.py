"""`dorafleet backup` and `dorafleet restore`: the coordinator's store in one file, and back."""

from __future__ import annotations

import asyncio
import os
import pwd
from functools import partial
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import print_object
from dorad.phrases import size_text
from dorad.terminal import visible
from dorafleet.cli.arguments import (
    File,
    coordinator_options,
    etcd_ca_option,
    etcd_cert_option,
    etcd_key_option,
    etcd_option,
    json_option,
    state_option,
)
from dorafleet.cli.coordinator import connect, folder_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from dorafleet.store.model import Store

BACKUP_EPILOG = """\b
Examples:
  dorafleet backup fleet.backup
  dorafleet backup /var/lib/dorafleet/fleet.backup    of the coordinator that systemd runs
\b
The coordinator writes the file while it runs, as its own user. It has all desired states and the
audit, not the token, and a checksum; only that user can read it. An earlier backup is replaced; any
other file is not. Files of uploaded releases are not in it: copy the folder `uploads`, too.
"""

RESTORE_EPILOG = """\b
Examples:
  dorafleet restore fleet.backup --state /srv/fleet
  dorafleet restore fleet.backup --etcd http://127.0.0.1:2379
  runuser -u dorafleet -- dorafleet restore fleet.backup --state /var/lib/dorafleet
\b
Run it as the coordinator's user; the last example is for the coordinator that systemd runs.
The coordinator must not run, and its store must be empty: move `coordinator.db` away.
Versions continue far above those of the backup, so none is given twice.
What was decided after the backup is missing, also revocations. Rollouts that were open are paused.
`dorafleet status` and `dorafleet doctor` ask about all that until you have decided.
"""


@click.command(epilog=BACKUP_EPILOG)
@click.argument("file", type=File(".backup"))
@json_option
@coordinator_options
def backup(file: Path, *, as_json: bool, state: Path, port: int) -> None:
    """Write everything that the coordinator keeps to FILE."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import COORDINATOR_BACKUP, Backup
    from dorafleet.coordinator.uploadmessages import RELEASE_STORED

    with connect(state, port) as client:
        try:
            done = client.call(COORDINATOR_BACKUP, Backup(path=str(file.absolute())))
        except ControlError as error:
            if error.code != "refused":
                raise
            place = folder_of(state) / file.name
            hint = f"the coordinator writes it, as its own user: `dorafleet backup {place}`"
            raise ControlError(error.code, error.message, error.hint or hint) from None
        uploads = client.call(RELEASE_STORED, Nothing())
    if as_json:
        print_object(
            {
                "file": str(file.absolute()),
                "entries": done.entries,
                "uploads": {"folder": uploads.folder, "bytes": uploads.used},
            }
        )
        return
    click.echo(f"{file}: {done.entries} entries")
    if uploads.used:
        note = f"not in it: the files of uploaded releases; copy {uploads.folder}, too"
        click.echo(visible(f"{note} ({size_text(uploads.used)})"), err=True)


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
    from dorafleet.coordinator.storechoice import open_store

    _check_owner(state)
    make_folder(state)
    connect = partial(
        open_store, state, etcd, authority=etcd_ca, certificate=etcd_cert, key=etcd_key
    )
    name, entries = asyncio.run(_restore(file, connect))
    click.echo(f"{name}: {entries} entries restored")
    click.echo(
        "what was decided after the backup is missing, also revocations, and open rollouts are "
        "paused: `dorafleet doctor` has the questions once the coordinator runs",
        err=True,
    )


def _check_owner(state: Path) -> None:
    """Refuse to make files that the coordinator of this folder could not use.

    Raises:
        ControlError: the folder belongs to another user.
    """
    from dorad.control.errors import ControlError

    try:
        owner = state.stat().st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        raise ControlError(
            "refused",
            f"{state} belongs to the user {name}, who runs the coordinator there",
            f"run it as that user: `runuser -u {name} -- dorafleet restore ...`",
        )


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
