"""Which dataflows a daemon starts by itself, and which it forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from dorad.daemon.record import Record


def first_since_boot(runtime: Path) -> bool:
    """Tell whether no daemon has asked this since the machine was switched on; notes that one has.

    `runtime` is a folder that is empty after a boot. Raises OSError.
    """
    try:
        (runtime / "booted").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def due(records: Sequence[Record], lost: Collection[str], *, boot: bool) -> list[Record]:
    """Return the dataflows to start: those that are enabled and do not run.

    After a `boot` all of them; later only those whose nodes are `lost` (by UUID), because what
    somebody has stopped stays so until the next boot.
    """
    return [
        record
        for record in records
        if record.row.enabled and not record.running and (boot or record.uuid in lost)
    ]


def forgettable(records: Sequence[Record], most: int) -> list[Record]:
    """Return the oldest dataflows that have ended, if there are more than `most` of them.

    Those that are enabled are to be started again, and stay.
    """
    ended = [record for record in records if not (record.running or record.row.enabled)]
    return ended[: max(0, len(ended) - most)]
