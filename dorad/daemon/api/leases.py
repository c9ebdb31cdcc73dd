"""The methods `lease.…`: what on this robot must not be interrupted."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.daemon.leases import Leases
from dorad.daemon.registry import Registry


class LeaseMethods:
    """Answers the methods `lease.…`."""

    def __init__(self, registry: Registry, leases: Leases) -> None:
        self._registry = registry
        self._leases = leases

    @handles(m.LEASE_LIST)
    async def list_all(self, _call: Call, _params: m.Nothing) -> m.LeaseList:
        """List the leases of nodes and of clients."""
        return m.LeaseList(leases=self._leases.all(self._of_nodes()))

    @handles(m.LEASE_TAKE)
    async def take(self, call: Call, params: m.LeaseTake) -> m.Lease:
        """Take a lease for some time."""
        if params.ttl is None:
            raise ControlError("bad-request", "`ttl` is missing", "`lease.hold` needs none")
        return self._leases.take(call.peer, params.reason, params.ttl)

    @handles(m.LEASE_HOLD)
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

    @handles(m.LEASE_END)
    async def end(self, call: Call, params: m.LeaseRef) -> m.Nothing:
        """End a lease that was taken for some time."""
        self._leases.end(params.id, call.peer)
        return m.Nothing()

    @handles(m.LEASE_RESERVE)
    async def reserve(self, _call: Call, params: m.LeaseReserve) -> m.Reservation:
        """Let no lease begin for some seconds, unless there are some."""
        leases = self._leases.all(self._of_nodes())
        left = 0.0
        if not leases or params.seconds == 0:
            left = self._leases.reserve(params.key, params.seconds)
            for record in self._registry.running:
                if record.run is not None:
                    record.run.broker.leases.defer(self._leases.reserved)
        return m.Reservation(left=left, leases=leases)

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
