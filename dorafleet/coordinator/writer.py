"""Write to the store as the leader of one term, with every change in the audit."""

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from dorad.control.errors import ControlError
from dorad.control.server import Call
from dorad.problems import ProblemError
from dorafleet.coordinator.audit import Head, read_tail
from dorafleet.store.errors import ConflictError
from dorafleet.store.model import LEADER, Store, Term, Transaction

T = TypeVar("T")

_log = logging.getLogger(__name__)

MAX_KEYS, MAX_BYTES = 50, 256 << 10
"""Keys of one transaction that stores what was measured, and bytes, approximately."""
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


class MeasuredWriter:
    """Stores what was measured, not decided; a loss is reported once, and tried again later."""

    def __init__(self, writer: Writer, report: str) -> None:
        """`report` says what is not stored."""
        self._writer = writer
        self._report = report
        self.failed = False
        """Whether the last attempt failed."""

    async def put(self, *puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> bool:
        """Make one transaction of each of `puts`, then delete; return False if one fails."""
        try:
            for each in puts:
                await self._writer.keep(each)
            for start in range(0, len(deletes), MAX_KEYS):
                await self._writer.keep({}, deletes[start : start + MAX_KEYS])
        except ProblemError as error:
            if not self.failed:
                _log.warning("%s: %s", self._report, error)
            self.failed = True
            return False
        self.failed = False
        return True


def transactions(values: Iterable[tuple[str, bytes]]) -> Iterator[dict[str, bytes]]:
    """Yield what each transaction puts of these values: not too many keys, nor too many bytes."""
    puts: dict[str, bytes] = {}
    size = 0
    for key, value in values:
        if puts and (size + len(value) > MAX_BYTES or len(puts) >= MAX_KEYS):
            yield puts
            puts, size = {}, 0
        puts[key] = value
        size += len(value)
    if puts:
        yield puts
