"""Read the records of the store. A damaged one stops the coordinator unless robots report it again.

A bad disk, another version or a person with the store's own tools may have written anything.
"""

import logging
from typing import TypeVar

import msgspec

from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import Entry, Store

T = TypeVar("T")

MEASURED = (
    "alerts/",
    "hand-over-owners/",
    "last-seen",
    "last-states/",
    "leads-at",
    "notify/",
    "past-alerts",
    "robot-states",
    "uploaded/",
)
"""How the keys begin of what robots have reported, and of where files are. All others have been
decided by somebody: what runs where, who may do what, what must not be tried again."""

_log = logging.getLogger(__name__)


def is_needed(key: str) -> bool:
    """Return True if a coordinator must not lead without this record."""
    return not key.startswith(MEASURED)


async def read(store: Store, prefix: str, kind: type[T]) -> list[tuple[Entry, T]]:
    """Return the records whose key starts with `prefix`, without damaged ones that are not needed.

    Raises:
        StoreError: the store cannot be read, or a record is damaged that is needed.
    """
    records: list[tuple[Entry, T]] = []
    for entry in (await store.get(prefix)).entries:
        try:
            records.append((entry, decoded(store, entry, kind)))
        except StoreError as error:
            if is_needed(entry.key):
                raise
            _log.warning("%s; going on without it", error.message)
    return records


def decoded(store: Store, entry: Entry, kind: type[T]) -> T:
    """Return the content of an entry.

    Raises:
        StoreError: it is damaged; the error names the key and the store.
    """
    try:
        return msgspec.json.decode(entry.value, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise damaged(store, entry, str(error)) from None


def damaged(store: Store, entry: Entry, why: str) -> StoreError:
    """Return the error for an entry that no version of this program can have written so."""
    return StoreError(
        Code.DAMAGED,
        f"`{entry.key}` in {store.name} is damaged: {why}",
        "start the version that has written it, or `dorafleet restore` a backup into a new store",
    )
