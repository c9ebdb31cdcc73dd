"""The certificate authority of a fleet, which all its coordinators share.

Its keys are files, never in the store. The store has its fingerprint: a coordinator with another
authority would be refused by all robots, so it does not start. While the authority hands over to
another one, the store has that fingerprint, too.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from dorad.control.errors import ControlError
from dorafleet.ca.authority import SHORT, Authority, find_folder, fingerprint_in, open_authority
from dorafleet.ca.handover import (
    CANCELLED,
    FINISHED,
    STARTED,
    Successor,
    has,
    open_successor,
    successor_of,
)
from dorafleet.coordinator.storerecords import read
from dorafleet.store.model import Store, Term, Transaction

KEY = "authority"
HAND_OVER = "hand-over"
"""The key of the last hand-over."""

_log = logging.getLogger(__name__)


class HandOverRecord(msgspec.Struct, frozen=True):
    """The last hand-over of the authority, which may be over."""

    previous: str
    """Fingerprints of both authorities."""
    next: str
    begun: float
    ends: float
    finished: float = 0.0
    """When the previous authority was dropped; 0 until then."""
    cancelled: float = 0.0
    """When the next authority was dropped instead; 0 if it was not."""

    @property
    def open(self) -> bool:
        """Whether robots are to trust both authorities."""
        return not self.finished and not self.cancelled


class Authorities(NamedTuple):
    """What a coordinator that leads has of its fleet's authority."""

    current: Authority
    """Whose certificate the coordinator shows."""
    record: HandOverRecord | None = None
    successor: Successor | None = None
    """Of the hand-over in `record`: to it, or once that is finished to `current`."""


async def check_authority(store: Store, folder: Path) -> Authorities | None:
    """Return the fleet's authority, which the folder must have; None for a fleet without one yet.

    Raises:
        ControlError: the folder has another one, or none.
        StoreError: the store cannot be read.
    """
    fingerprint = await _known(store)
    if fingerprint is None:
        return None
    record = await read_hand_over(store)
    return await asyncio.to_thread(_open_known, folder, fingerprint, record)


async def load_authorities(
    store: Store, term: Term, folder: Path, *, new_authority: bool = False
) -> Authorities:
    """Return the fleet's authority and its last hand-over. A new fleet gets an authority.

    With `new_authority` it is the one in the folder, whatever the fleet had before. A hand-over
    that the folder knows and the store does not was begun after the backup that was restored: it
    goes on.

    Raises:
        ControlError: the folder has another authority, or is damaged.
        StoreError: the store cannot be used, or another coordinator leads now.
    """
    fingerprint = None if new_authority else await _known(store)
    record = await read_hand_over(store)
    if fingerprint is None:
        current = await asyncio.to_thread(open_authority, folder)
        fingerprint, record = current.fingerprint, None
    known = await asyncio.to_thread(_open_known, folder, fingerprint, record)
    if (await _known(store), await read_hand_over(store)) != (
        known.current.fingerprint,
        known.record,
    ):
        puts = {KEY: known.current.fingerprint.encode()}
        if known.record is not None:
            puts[HAND_OVER] = msgspec.json.encode(known.record)
        deletes = () if known.record is not None else (HAND_OVER,)
        await store.commit(Transaction(term.compares, puts, deletes))
    _log.info("the fleet's authority has the fingerprint %s", known.current.fingerprint)
    return known


async def read_hand_over(store: Store) -> HandOverRecord | None:
    """Return the last hand-over, None if there was none. Raises StoreError."""
    entries = await read(store, HAND_OVER, HandOverRecord)
    return next((record for entry, record in entries if entry.key == HAND_OVER), None)


async def _known(store: Store) -> str | None:
    entries = (await store.get(KEY)).entries
    return next((each.value.decode(errors="replace") for each in entries if each.key == KEY), None)


def _open_known(folder: Path, fingerprint: str, record: HandOverRecord | None) -> Authorities:
    """Open the authority of a fingerprint, and what it hands over to. Raises ControlError."""
    if not folder.exists():
        raise _other(f"{folder} is missing: it has the authority of this fleet", fingerprint)
    place = find_folder(folder, fingerprint)
    if place is None:
        known = fingerprint_in(folder)[:SHORT]
        raise _other(
            f"{folder} has the authority {known}, which is not that of this fleet", fingerprint
        )
    current = open_authority(place)
    if record is not None and record.next == current.fingerprint:
        # Its hand-over is over: what it was signed with is told to robots that were away.
        before = find_folder(folder, record.previous)
        if before is not None:
            old = open_authority(before)
            return _followed(
                folder, Authorities(current, record, open_successor(folder, old, record.next, 0))
            )
        return _followed(folder, Authorities(current, record))
    if record is not None and not record.finished and record.previous == current.fingerprint:
        successor = open_successor(folder, current, record.next, 0)
        return _followed(folder, Authorities(current, record, successor))
    return _followed(folder, Authorities(current))


def _followed(folder: Path, known: Authorities) -> Authorities:
    """Return what the folder knows of later hand-overs than the store. Raises ControlError."""
    place = successor_of(folder, known.current.fingerprint)
    if place is None or not (has(place, STARTED) or has(place, FINISHED)):
        return known
    wanted = fingerprint_in(place)
    if known.record is not None and known.record.cancelled and known.record.next == wanted:
        return known
    successor = open_successor(folder, known.current, wanted, 0)
    record = HandOverRecord(known.current.fingerprint, wanted, successor.begun, successor.ends)
    if has(place, CANCELLED):
        _log.warning("the store does not know that the hand-over to %.16s was cancelled", wanted)
        cancelled = msgspec.structs.replace(record, cancelled=time.time())
        return Authorities(known.current, cancelled, successor)
    if not has(place, FINISHED):
        if known.record is None or not known.record.open:
            _log.warning("the store does not know of the hand-over to %.16s: it goes on", wanted)
            return Authorities(known.current, record, successor)
        return known
    _log.warning("the store does not know that the authority is %.16s now", wanted)
    finished = msgspec.structs.replace(record, finished=time.time())
    return _followed(folder, Authorities(successor.authority, finished, successor))


def _other(message: str, fingerprint: str) -> ControlError:
    return ControlError(
        "refused",
        f"{message}, {fingerprint[:SHORT]}",
        "copy the folder `ca` of the coordinator that served this fleet; with `--new-authority` "
        "all robots have to be enrolled again",
    )
