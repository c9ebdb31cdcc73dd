"""The certificate authority of a fleet, which all its coordinators share.

Its keys are files, never in the store. The store has its fingerprint: a coordinator with another
authority would be refused by all robots, so it does not start.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorafleet.ca.authority import Authority, open_authority
from dorafleet.store.model import Transaction

if TYPE_CHECKING:
    from pathlib import Path

    from dorafleet.store.model import Store, Term

KEY = "authority"
SHOWN = 16
"""Digits of a fingerprint in a message."""

_log = logging.getLogger(__name__)


async def check_authority(store: Store, folder: Path) -> Authority | None:
    """Return the fleet's authority, None if the fleet has none yet.

    Raises:
        ControlError: the folder has another one, or none.
        StoreError: the store cannot be read.
    """
    entries = (await store.get(KEY)).entries
    known = [entry.value.decode(errors="replace") for entry in entries if entry.key == KEY]
    return await asyncio.to_thread(_open_known, folder, known[0]) if known else None


async def claim_authority(store: Store, term: Term, folder: Path) -> Authority:
    """Make the authority in the folder, which may be new, that of the fleet.

    Raises:
        ControlError: a file is damaged.
        StoreError: the store cannot be written, or another coordinator leads now.
    """
    authority = await asyncio.to_thread(open_authority, folder)
    await store.commit(Transaction(term.compares, {KEY: authority.fingerprint.encode()}))
    _log.info("the fleet's authority has the fingerprint %s", authority.fingerprint)
    return authority


def _open_known(folder: Path, fingerprint: str) -> Authority:
    if not folder.exists():
        raise _other(f"{folder} is missing: it has the authority of this fleet", fingerprint)
    authority = open_authority(folder)
    if authority.fingerprint != fingerprint:
        found = authority.fingerprint[:SHOWN]
        raise _other(
            f"{folder} has the authority {found}, which is not that of this fleet", fingerprint
        )
    return authority


def _other(message: str, fingerprint: str) -> ControlError:
    return ControlError(
        "refused",
        f"{message}, {fingerprint[:SHOWN]}",
        "copy the folder `ca` of the coordinator that served this fleet; with `--new-authority` "
        "all robots have to be enrolled again",
    )
