"""The audit: a chain of records in the store. Each hash includes the previous one.

The hash of a record is SHA-256(hash of the one before ‖ bytes of the record). A changed record
breaks the chain. A chain that was cut, or rewritten, does not have the head that another machine
has kept, so heads are passed on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dorad.problems import ProblemError
from dorafleet.store.model import Store

PREFIX = "audit/"
HEAD = "audit-head"

_FIRST = "0" * 64
_DIGITS = 20
_PAGE = 256
_TEXT = re.compile(r"(\d{1,20}):([0-9a-f]{64})")


class AuditError(ProblemError):
    """A chain that was changed, or is incomplete."""

    def __init__(self, message: str) -> None:
        super().__init__("damaged", message, "compare with a backup")


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain; `str()` is what people and programs keep of it."""

    sequence: int = 0
    """Counts from 1; 0 if there is no record."""
    hash: str = _FIRST

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return the head that `str()` wrote. Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"`{text}` is not a head of an audit, such as `7:` and 64 digits")
        return cls(int(match[1]), match[2])

    def followed_by(self, record: bytes) -> Head:
        """Return the head of the chain with one more record."""
        digest = hashlib.sha256(bytes.fromhex(self.hash) + record)
        return Head(self.sequence + 1, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the chain in a store, to which a transaction can append."""

    head: Head
    version: int
    """Of the key of the head; 0 if there is none."""

    @property
    def compares(self) -> dict[str, int]:
        """The comparisons of the transaction, so that no other writer's record is lost."""
        return {HEAD: self.version}

    def puts(self, record: bytes) -> dict[str, bytes]:
        """Return the writes of the transaction."""
        head = self.head.followed_by(record)
        return {_key(head.sequence): head.hash.encode() + b"\n" + record, HEAD: str(head).encode()}


@dataclass(frozen=True, slots=True)
class Row:
    """A record of the chain as the store has it, unchecked."""

    sequence: int
    hash: str
    record: bytes


async def read_tail(store: Store) -> Tail:
    """Return the end of the chain. Raises AuditError if its key is damaged."""
    for entry in (await store.get(HEAD, limit=1)).entries:
        if entry.key == HEAD:
            return Tail(_head_in(entry.value), entry.version)
    return Tail(Head(), 0)


async def read_rows(store: Store, after: int = 0) -> AsyncIterator[Row]:
    """Yield the rows after a sequence number, in order. Raises AuditError for an invalid row."""
    last = _key(after)
    while entries := (await store.get(PREFIX, after=last, limit=_PAGE)).entries:
        for entry in entries:
            digits = entry.key.removeprefix(PREFIX)
            hash_, line, record = entry.value.partition(b"\n")
            if not (digits.isdecimal() and len(digits) == _DIGITS and line):
                raise AuditError(f"`{entry.key}` is not a record of the audit")
            yield Row(int(digits), hash_.decode("ascii", "replace"), record)
        last = entries[-1].key


async def verify(store: Store, known: Head | None = None) -> Head:
    """Check the whole chain and return its head; `known` is one that was kept elsewhere.

    Raises:
        AuditError: names the first record that was changed, removed or inserted, or says that the
            chain does not continue the known one.
    """
    tail = await read_tail(store)
    head, known_passed = Head(), known is None or known.sequence == 0
    async for row in read_rows(store):
        if row.sequence != head.sequence + 1:
            raise AuditError(f"record {head.sequence + 1} of the audit is missing")
        head = head.followed_by(row.record)
        if head.hash != row.hash:
            raise AuditError(f"record {head.sequence} of the audit, or one before, was changed")
        if known is not None and head.sequence == known.sequence:
            if head.hash != known.hash:
                raise AuditError(
                    f"record {head.sequence} of the audit is not the known one: the chain was "
                    "rewritten"
                )
            known_passed = True
        if head.sequence == tail.head.sequence:
            break  # what follows was appended after the verification began
    if not known_passed:
        assert known is not None
        raise AuditError(
            f"the audit ends with record {head.sequence}, the known head is record "
            f"{known.sequence}: its end was cut off"
        )
    if head != tail.head:
        raise AuditError(
            f"the audit ends with record {head.sequence}, its head says {tail.head.sequence}"
        )
    return head


async def contradiction(store: Store, known: str) -> str:
    """Return how the chain contradicts a head that was kept elsewhere; empty if it does not.

    Only the head and one record are read; `verify` reads the whole chain.
    """
    if not known:
        return ""
    try:
        head = Head.parse(known)
    except ValueError as error:
        return str(error)
    last = (await read_tail(store)).head
    if head.sequence > last.sequence:
        return f"it ends with record {last.sequence}, but there was a record {head.sequence}"
    async for row in read_rows(store, head.sequence - 1):
        if head.sequence > 0 and (row.sequence, row.hash) != (head.sequence, head.hash):
            return f"record {head.sequence} is another one"
        break
    return ""


def _key(sequence: int) -> str:
    return f"{PREFIX}{sequence:0{_DIGITS}}"


def _head_in(value: bytes) -> Head:
    try:
        return Head.parse(value.decode())
    except (ValueError, UnicodeError):
        raise AuditError("the head of the audit was changed") from None
