"""Write to the store as the leader of one term, with every change in the audit."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dorad.control.errors import ControlError
from dorafleet.coordinator.audit import read_tail
from dorafleet.store.errors import ConflictError
from dorafleet.store.model import LEADER, Transaction

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Mapping

    from dorad.control.server import Call
    from dorafleet.coordinator.audit import Head
    from dorafleet.store.model import Store, Term


T = TypeVar("T")

MAX_CLIENT = 100
"""Characters of a client's name in the audit."""
COORDINATOR = {"client": "coordinator"}
"""The author of what no client has asked for, as `actor_of`."""


def actor_of(call: Call) -> dict[str, Any]:
    """Return the author of a change, for the audit."""
    return {
        "user": call.peer.uid,
        "peer": call.peer.name,
        "role": call.peer.role,
        "client": call.client[:MAX_CLIENT],
    }


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of work that is not given up half way.

    A cancellation comes at the next wait of the caller, which may first do what belongs to it.
    """
    task = asyncio.create_task(work)
    caller = asyncio.current_task()
    assert caller is not None
    cancellations = 0
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancellations += 1
            caller.uncancel()
    for _ in range(cancellations):
        caller.cancel()
    return task.result()


class Writer:
    """The only writer of the store. Hold `changing` from reading a state until its change."""

    def __init__(self, store: Store, term: Term) -> None:
        self.changing = asyncio.Lock()
        """One change after the other: all append to the same audit."""
        self.head: Head | None = None
        """The end of the audit after the last change of this writer; None before the first."""
        self._store = store
        self._term = term

    @property
    def epoch(self) -> int:
        """The number of the term."""
        return self._term.epoch

    async def commit(
        self,
        record: Mapping[str, Any],
        *,
        compares: Mapping[str, int] | None = None,
        puts: Mapping[str, bytes] | None = None,
        deletes: Collection[str] = (),
    ) -> tuple[int, Head]:
        """Make a change, append `record` to the audit; return the revision and the new head.

        Raises:
            ControlError: another coordinator leads now.
            StoreError: a version differs, the change is too large, or the store cannot be written.
        """
        entry = msgspec.json.encode({"time": time.time(), "epoch": self.epoch, **record})
        tail = await read_tail(self._store)
        revision = await self._commit(
            Transaction(
                {**(compares or {}), **tail.compares, **self._term.compares},
                {**(puts or {}), **tail.puts(entry)},
                deletes,
            )
        )
        self.head = tail.head.followed_by(entry)
        return revision, self.head

    async def keep(self, puts: Mapping[str, bytes], deletes: Collection[str] = ()) -> None:
        """Store what was measured, not decided: without a record. Raises as `commit`."""
        await self._commit(Transaction(self._term.compares, puts, deletes))

    async def _commit(self, transaction: Transaction) -> int:
        try:
            # A caller whose client goes away meanwhile must know what the store has.
            return await uninterrupted(self._store.commit(transaction))
        except ConflictError as error:
            if LEADER in error.found:
                raise ControlError(
                    "unavailable", "another coordinator leads now", "ask that one"
                ) from None
            raise
