"""Convert the store of an earlier version, once: two tables become that of the deployments."""

import logging
from pathlib import Path

import msgspec

from dorad.control.errors import ControlError
from dorad.int64 import Int64
from dorafleet.coordinator.deployments import DEPLOYMENTS, Deployment, converted
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.rollouts import HEADS
from dorafleet.coordinator.storerecords import damaged, decoded, read
from dorafleet.coordinator.writer import COORDINATOR, Writer
from dorafleet.rollout.model import Rollout
from dorafleet.store.backup import back_up
from dorafleet.store.model import Store

RUNS = "dataflow/"
NEWEST = "rollout-newest/"
"""By dataflow: the number of its newest rollout."""

MARK = f"{RUNS}!moved"
"""No dataflow has this name. An earlier version finds it damaged and does not lead: without the
dataflows in this table it would end all that robots run."""

BACKUP = "before-deployments.backup"

_log = logging.getLogger(__name__)


async def convert(store: Store, writer: Writer, folder: Path) -> int:
    """Convert what an earlier version has left; return the number of deployments.

    The store before is in `folder`, as a backup. A conversion that was interrupted continues.

    Raises:
        ControlError: the backup cannot be written, or another coordinator leads now.
        StoreError: a record is damaged, or the store cannot be used.
    """
    entries = {entry.key: entry for entry in (await store.get(RUNS)).entries}
    marked = entries.pop(MARK, None) is not None
    runs: dict[str, DataflowRecord] = {}
    for key, entry in entries.items():
        record = decoded(store, entry, DataflowRecord)
        if key != f"{RUNS}{record.key}":
            raise damaged(store, entry, f"it describes `{record.key}`")
        runs[record.key] = record
    newest = {e.key.removeprefix(NEWEST): n for e, n in await read(store, NEWEST, Int64)}
    known = {each.name: each for _, each in await read(store, DEPLOYMENTS, Deployment)}
    heads: dict[str, list[Rollout]] = {}
    for _, head in await read(store, HEADS, Rollout):
        heads.setdefault(head.dataflow, []).append(head)
    names = sorted({*runs, *newest, *(heads.keys() - known.keys())})
    if not marked:
        if names:
            await _back_up(store, folder / BACKUP)
        # First, so that no earlier version leads between two of the steps.
        await writer.keep({MARK: b'"deployment"'})
    for name in names:
        run, number = runs.get(name), newest.get(name, 0)
        each = converted(name, known.get(name), run, number, heads.get(name, ()))
        old = [f"{RUNS}{name}"] if run is not None else []
        old += [f"{NEWEST}{name}"] if name in newest else []
        async with writer.changing:
            await writer.commit(
                {**COORDINATOR, "action": "store.convert", "deployment": name},
                puts={each.key: msgspec.json.encode(each)},
                deletes=old,
            )
    if names:
        _log.info("%s: %d deployments were converted", store.name, len(names))
    return len(names)


async def _back_up(store: Store, path: Path) -> None:
    """Write the store before its conversion to a file, which an earlier version can restore."""
    try:
        await back_up(store, path)
    except OSError as error:
        raise ControlError(
            "refused",
            f"{path} cannot be written: {error.strerror}",
            "the store is only converted with a backup beside",
        ) from None
    _log.info("%s: the backup before the conversion is %s", store.name, path)
