"""Which rows a stream sends: all at first, then those that have changed."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from dorad.control.messages import FleetRow, FleetRows


class RowDeltas:
    """What one client has been sent."""

    def __init__(self) -> None:
        self._sent: dict[str, FleetRow] | None = None

    def take(self, rows: Iterable[FleetRow]) -> FleetRows | None:
        """Return the differences from the last report; None if there are none.

        While a robot can be reached, a newer time of its last report does not count.
        """
        whole = self._sent is None
        before = self._sent or {}
        now: dict[str, FleetRow] = {}
        changed: list[FleetRow] = []
        for row in rows:
            now[row.robot] = row
            known = before.get(row.robot)
            if known is row:
                continue
            if known is None or _differ(known, row):
                changed.append(row)
            else:
                now[row.robot] = known
        removed = sorted(before.keys() - now.keys())
        self._sent = now
        if not (whole or changed or removed):
            return None
        return FleetRows(at=time.time(), rows=changed, removed=removed, whole=whole)


def _differ(before: FleetRow, now: FleetRow) -> bool:
    return msgspec.structs.replace(before, seen_at=now.seen_at) != now
