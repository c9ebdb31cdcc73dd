"""The engine for several coordinators: an etcd cluster, through its JSON gateway.

Keys have a prefix, so that others may use the same cluster. Revisions are etcd's
plus a base, which a restore sets so that they never fall.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode, b64encode
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import msgspec

from dorafleet.store.errors import Code, CompactedError, ConflictError, StoreError, not_empty
from dorafleet.store.gateway import Gateway, GatewayError
from dorafleet.store.model import (
    LEADER,
    LEASE_S,
    MAX_BYTES,
    MAX_OPERATIONS,
    Changes,
    Entry,
    Snapshot,
    Store,
    Term,
    Transaction,
    claim_of,
    end_of,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence

NAMESPACE = "/dorafleet/"

RETRY_S = 0.5
"""Seconds between two tries to become the leader."""

RECHECK_S = 10.0
"""Seconds after which one that waits for a leader's end reads again who leads."""

_log = logging.getLogger(__name__)


class _Meta(msgspec.Struct):
    """Facts about the store itself; absent if it was never restored from a backup."""

    base: int
    """Added to etcd's revisions."""
    complete: bool
    """Whether the restore reached its end."""


@dataclass(slots=True)
class _Lease:
    id: str
    seconds: float
    renewed: float
    """On the loop's clock, when the last renewal that succeeded was sent."""


class EtcdStore(Store):
    """A store in an etcd cluster. Made by `open`."""

    shared = True

    def __init__(self, gateway: Gateway, namespace: str) -> None:
        """Prepare a store; nothing is sent."""
        self._gateway = gateway
        self.name = f"etcd at {gateway.name}"
        self._namespace = namespace
        self._meta_key = f"{namespace}meta"
        self._data = f"{namespace}data/"
        self._base = 0
        self._closed = False

    @classmethod
    async def open(
        cls,
        endpoints: Sequence[str],
        *,
        tls: ssl.SSLContext | None = None,
        namespace: str = NAMESPACE,
    ) -> Self:
        """Connect to the members at these addresses.

        Raises:
            StoreError: none of them answers, or a restore was interrupted.
        """
        store = cls(Gateway(endpoints, tls), namespace)
        try:
            meta = await store._read_meta()
            if meta is not None and not meta.complete:
                raise StoreError(
                    Code.DAMAGED,
                    f"the restore into {store.name} was interrupted",
                    f"delete what is under {namespace} and restore again",
                )
        except BaseException:
            await store.close()
            raise
        store._base = 0 if meta is None else meta.base
        return store

    async def get(self, prefix: str, *, after: str = "", limit: int | None = None) -> Snapshot:
        """Return the entries whose key starts with `prefix` and sorts after the key `after`."""
        full = self._data + prefix
        first = max(full, f"{self._data}{after}\0") if after else full
        body = {"key": _text(first), "range_end": _text(end_of(full)), "limit": limit or 0}
        answer = await self._call("/v3/kv/range", body, repeatable=True)
        entries = tuple(self._entry(each) for each in answer.get("kvs", ()))
        return Snapshot(self._revision(answer), entries)

    async def commit(self, transaction: Transaction) -> int:
        """Make the changes and return the revision. They are on the disk then."""
        return await self._commit(transaction)

    async def watch(self, prefix: str, start: int) -> AsyncGenerator[Changes, None]:
        """Yield every change under `prefix` from the revision `start` on, then as they happen."""
        if start <= self._base:
            raise CompactedError(start)
        full = self._data + prefix
        body = {
            "create_request": {
                "key": _text(full),
                "range_end": _text(end_of(full)),
                "start_revision": str(start - self._base),
            }
        }
        self._check_open()
        try:
            async with self._gateway.stream("/v3/watch", body) as answers:
                async for answer in answers:
                    if int(answer.get("compact_revision", 0)):
                        raise CompactedError(start)
                    if answer.get("canceled"):
                        reason = answer.get("cancel_reason", "no reason given")
                        raise StoreError(Code.UNAVAILABLE, f"etcd ended a watch: {reason}")
                    for changes in self._grouped(answer.get("events", ())):
                        yield changes
        except GatewayError as error:
            raise self._failed(error) from None

    async def compact(self, revision: int) -> None:
        """Forget the history up to `revision`."""
        answer = await self._call("/v3/kv/range", {"key": _text(self._meta_key)}, repeatable=True)
        last = min(revision, self._revision(answer)) - self._base
        if last <= 0:
            return
        try:
            await self._gateway.call("/v3/kv/compaction", {"revision": str(last)})
        except GatewayError as error:
            if not error.is_compacted:
                raise self._failed(error) from None

    @asynccontextmanager
    async def lead(
        self,
        name: str,
        *,
        lease: float = LEASE_S,
        on_waiting: Callable[[str], object] = lambda _: None,
    ) -> AsyncIterator[Term]:
        """Wait until no other candidate leads, then lead as `name` until the block ends.

        `on_waiting` gets the reason of each wait.
        """
        held, number, version = await self._campaign(name, lease, on_waiting)
        term = Term(number, version, asyncio.Event())
        renewal = asyncio.create_task(self._keep(held, term), name=f"lease of {name}")
        try:
            yield term
        finally:
            renewal.cancel()
            await asyncio.wait((renewal,))
            # If this fails, the lease ends by itself.
            with suppress(StoreError):
                await self._call("/v3/lease/revoke", {"ID": held.id})

    async def fill(self, entries: Iterable[Entry], revision: int) -> None:
        """Put the entries of a backup into an empty store and continue above `revision`."""
        snapshot = await self.get("", limit=1)
        if snapshot.entries or await self._read_meta() is not None:
            raise not_empty(self.name)
        base = self._base + revision
        await self._write_meta(_Meta(base, complete=False))
        batch: dict[str, bytes] = {}
        size = 0
        for entry in entries:
            more = len(entry.key) + len(entry.value)
            if len(batch) == MAX_OPERATIONS or size + more > MAX_BYTES:
                await self._commit(Transaction(puts=batch))
                batch, size = {}, 0
            batch[entry.key] = entry.value
            size += more
        await self._commit(Transaction(puts=batch))
        await self._write_meta(_Meta(base, complete=True))
        self._base = base

    async def close(self) -> None:
        """End the connections and all watches."""
        self._closed = True
        await self._gateway.close()

    async def _commit(self, transaction: Transaction, lease: str = "0") -> int:
        puts = [
            {
                "request_put": {
                    "key": _text(self._data + key),
                    "value": _base64(value),
                    "lease": lease if key == LEADER else "0",
                }
            }
            for key, value in transaction.puts.items()
        ]
        deletes = [
            {"request_delete_range": {"key": _text(self._data + key)}}
            for key in transaction.deletes
        ]
        keys = [_text(self._data + key) for key in transaction.compares]
        body = {
            "compare": [
                {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(expected)}
                for key, expected in zip(
                    keys, map(self._native, transaction.compares.values()), strict=True
                )
            ],
            "success": [*puts, *deletes],
            "failure": [{"request_range": {"key": key, "keys_only": True}} for key in keys],
        }
        answer = await self._call("/v3/kv/txn", body)
        if not answer.get("succeeded"):
            versions = dict.fromkeys(transaction.compares, 0)
            for response in answer.get("responses", ()):
                for each in response["response_range"].get("kvs", ()):
                    entry = self._entry(each)
                    versions[entry.key] = entry.version
            raise ConflictError(transaction.compares, versions)
        return self._revision(answer)

    async def _campaign(
        self, name: str, seconds: float, on_waiting: Callable[[str], object]
    ) -> tuple[_Lease, int, int]:
        """Wait for the key of the leader to be free, and put it with a lease.

        Return the lease, the number of the term, and the version of the key.
        """
        while True:
            try:
                await self._until_free(on_waiting)
                lease = await self._grant(seconds)
                claim, number = await claim_of(self, name)
                claim = replace(claim, compares={**claim.compares, LEADER: 0})
                try:
                    return lease, number, await self._commit(claim, lease.id)
                except StoreError:
                    # Also if the claim was written without our learning of it.
                    await self._call("/v3/lease/revoke", {"ID": lease.id})
                    raise
            except ConflictError:
                _log.debug("%s: another was faster to lead", name)
            except StoreError as error:
                # One that waits for its turn outlives what the leader may not survive.
                if self._closed:
                    raise
                _log.warning("%s cannot lead: %s", name, error)
                on_waiting(error.message)
                await asyncio.sleep(RETRY_S)

    async def _grant(self, seconds: float) -> _Lease:
        sent = asyncio.get_running_loop().time()
        answer = await self._call("/v3/lease/grant", {"TTL": str(max(1, round(seconds)))})
        return _Lease(answer["ID"], float(answer["TTL"]), sent)

    async def _until_free(self, on_waiting: Callable[[str], object]) -> None:
        """Wait until there is no key of a leader."""
        reason = ""
        while True:
            snapshot = await self.get(LEADER, limit=1)
            leaders = [entry for entry in snapshot.entries if entry.key == LEADER]
            if not leaders:
                return
            before, reason = reason, f"`{leaders[0].value.decode(errors='replace')}` leads"
            if reason != before:
                on_waiting(reason)
                _log.info("%s", reason)
            # A watch only goes silent when most members are away: the next read says so.
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(RECHECK_S),
                    aclosing(self.watch(LEADER, snapshot.revision + 1)) as watch,
                ):
                    async for changes in watch:
                        if changes.values.get(LEADER, b"") is None:
                            return

    async def _keep(self, lease: _Lease, term: Term) -> None:
        """Renew a lease until it is lost, and set `lost` then. Each failure is retried."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(lease.renewed + lease.seconds) as end:
                while True:
                    await asyncio.sleep(lease.seconds / 4)
                    sent = loop.time()
                    body = {"ID": lease.id}
                    try:
                        answer = await self._call("/v3/lease/keepalive", body, repeatable=True)
                    except StoreError as error:
                        _log.warning("the lease of the leader was not renewed: %s", error)
                        continue
                    if not int(answer.get("TTL", 0)):
                        break
                    lease.renewed = sent
                    end.reschedule(sent + lease.seconds)
        except TimeoutError:
            pass
        finally:
            # Also after a fault: without renewals the lease ends.
            term.lost.set()
        _log.warning("this coordinator no longer leads: its lease has ended")

    async def _read_meta(self) -> _Meta | None:
        body = {"key": _text(self._meta_key)}
        answer = await self._call("/v3/kv/range", body, repeatable=True)
        for pair in answer.get("kvs", ()):
            try:
                return msgspec.json.decode(b64decode(pair.get("value", "")), type=_Meta)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise StoreError(
                    Code.DAMAGED,
                    f"`{self._meta_key}` in {self.name} is damaged: {error}",
                    f"restore a backup after deleting what is under {self._namespace}",
                ) from None
        return None

    async def _write_meta(self, meta: _Meta) -> None:
        value = _base64(msgspec.json.encode(meta))
        await self._call("/v3/kv/put", {"key": _text(self._meta_key), "value": value})

    async def _call(self, path: str, body: object, *, repeatable: bool = False) -> dict[str, Any]:
        self._check_open()
        try:
            return await self._gateway.call(path, body, repeatable=repeatable)
        except GatewayError as error:
            raise self._failed(error) from None

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(Code.UNAVAILABLE, "the store is closed")

    def _failed(self, error: GatewayError) -> StoreError:
        code = Code.UNKNOWN if error.is_unsettled else Code.UNAVAILABLE
        return StoreError(code, f"{self.name}: {error}")

    def _grouped(self, events: Iterable[dict[str, Any]]) -> list[Changes]:
        """Return events by their revision; etcd does not split one over two answers."""
        changes: dict[int, dict[str, bytes | None]] = {}
        for event in events:
            entry = self._entry(event["kv"])
            deleted = event.get("type") == "DELETE"
            changes.setdefault(entry.version, {})[entry.key] = None if deleted else entry.value
        return [Changes(*each) for each in changes.items()]

    def _entry(self, pair: dict[str, Any]) -> Entry:
        return Entry(
            # Somebody else may have put a key there that is not text.
            b64decode(pair["key"]).decode(errors="replace").removeprefix(self._data),
            b64decode(pair.get("value", "")),
            int(pair["mod_revision"]) + self._base,
        )

    def _revision(self, answer: dict[str, Any]) -> int:
        return int(answer["header"]["revision"]) + self._base

    def _native(self, version: int) -> int:
        """Return etcd's own number of a version, -1 for an impossible one."""
        return version - self._base if version > self._base else -1 if version else 0


def _text(key: str) -> str:
    return _base64(key.encode())


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
