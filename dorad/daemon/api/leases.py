"""The methods `lease.…`: what on this robot must not be interrupted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import HandlerTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dorad.control.server import Call
    from dorad.daemon.leases import Leases
    from dorad.daemon.registry import Registry


class LeaseMethods:
    """Answers the methods `lease.…`."""

    def __init__(self, registry: Registry, leases: Leases) -> None:
        self._registry = registry
        self._leases = leases

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.call(m.LEASE_LIST, self.list_all)
        table.call(m.LEASE_TAKE, self.take)
        table.stream(m.LEASE_HOLD, self.hold)
        table.call(m.LEASE_END, self.end)
        return table

    async def list_all(self, _call: Call, _params: m.Nothing) -> m.LeaseList:
        """List the leases of nodes and of clients."""
        return m.LeaseList(leases=self._leases.all(self._of_nodes()))

    async def take(self, call: Call, params: m.LeaseTake) -> m.Lease:
        """Take a lease for some time."""
        if params.ttl is None:
            raise ControlError("bad-request", "`ttl` is missing", "`lease.hold` needs none")
        return self._leases.take(call.peer, params.reason, params.ttl)

    async def hold(self, call: Call, params: m.LeaseTake) -> AsyncIterator[m.Lease]:
        """Hold a lease until the client ends the stream, or itself."""
        if params.ttl is not None:
            raise ControlError("bad-request", "`ttl` is for `lease.take`")
        lease = self._leases.take(call.peer, params.reason, None)
        try:
            yield lease
            await asyncio.Event().wait()
        finally:
            self._leases.end(lease.id)

    async def end(self, call: Call, params: m.LeaseRef) -> m.Nothing:
        """End a lease that was taken for some time."""
        self._leases.end(params.id, call.peer)
        return m.Nothing()

    def _of_nodes(self) -> Iterator[m.Lease]:
        for record in self._registry.running:
            if record.run is None:
                continue
            for node, pid, number, reason, since in record.run.broker.leases.all():
                yield m.Lease(
                    id=f"{record.uuid[:8]}/{node}/{number}",
                    reason=reason,
                    owner=f"{record.title}/{node} (pid {pid})",
                    since=since,
                )
