"""The certificates and tokens of robots, operators and programs, and their revocations.

All of it is in memory, too: it is asked at every connection.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation
from dorad.control.tls import GRACE_S, Certificate, Role
from dorafleet.coordinator.accessmessages import Grant, Kind
from dorafleet.coordinator.storerecords import damaged, decoded, read
from dorafleet.coordinator.writer import Writer, uninterrupted
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import Store

PREFIX = "access/"

REVOCATIONS = "revocations"
"""The key of the newest revocations, which robots know, too: see `auditmemories`."""
MAX_REVOCATIONS = 100

_log = logging.getLogger(__name__)


class Holder(msgspec.Struct, frozen=True):
    """A robot or an operator: the value of `access/<kind>/<name>`."""

    serials: dict[str, float]
    """Its certificates that are accepted, each with its end."""
    refused: dict[str, float] = {}
    """Those that were revoked, each with its end; forgotten once they are too old anyway."""
    role: Role | None = None
    revoked: bool = False
    """Whether all its certificates are refused, even those unknown to this coordinator."""


class TokenRecord(msgspec.Struct, frozen=True):
    """A token of a client: the value of `access/token/<name>`."""

    hash: str
    role: Role
    expires: float


class EnrolmentRecord(msgspec.Struct, frozen=True):
    """A token for one enrolment: the value of `access/enrolment/<robot>`."""

    hash: str
    expires: float
    used: bool = False
    key: str = ""
    """The digest of the key that it was used for, which may ask again; see `key_digest`."""
    serial: str = ""
    """Of the certificate that it was used for."""


Value = Holder | TokenRecord | EnrolmentRecord
_TYPES: Mapping[str, type[Value]] = {
    "robot": Holder,
    "operator": Holder,
    "token": TokenRecord,
    "enrolment": EnrolmentRecord,
}


def digest(token: str) -> str:
    """Return the hash by which a token is known; a random token needs no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Grants:
    """All grants, in memory and in the store. Only the leader has one."""

    def __init__(
        self, store: Store, writer: Writer, clock: Callable[[], float] = time.time
    ) -> None:
        """Start empty; `load` reads the store."""
        self.clock = clock
        self._store = store
        self._writer = writer
        self._values: dict[tuple[str, str], Value] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        """The key of the record of each token, by its hash."""
        self.revocations: list[Revocation] = []
        """The newest, the oldest of them first."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        entries = (await self._store.get(PREFIX)).entries
        revocations = await read(self._store, REVOCATIONS, list[Revocation])
        self.revocations = revocations[0][1] if revocations else []
        self._values.clear()
        self._tokens.clear()
        for entry in entries:
            kind, _, name = entry.key.removeprefix(PREFIX).partition("/")
            if kind not in _TYPES:
                raise damaged(self._store, entry, "this version does not know what it is")
            self._remember(kind, name, decoded(self._store, entry, _TYPES[kind]))
        _log.debug("%d robots, operators and tokens", len(self._values))

    def holder(self, kind: str, name: str) -> Holder | None:
        """Return a robot or an operator, None if none of this name was given a certificate."""
        record = self._values.get((kind, name))
        return record if isinstance(record, Holder) else None

    def token(self, text: str) -> tuple[str, TokenRecord | EnrolmentRecord] | None:
        """Return the record of a token with its name, or None. It may have expired."""
        key = self._tokens.get(digest(text))
        if key is None:
            return None
        record = self._values[key]
        assert not isinstance(record, Holder)
        return key[1], record

    def enrolment(self, robot: str) -> EnrolmentRecord | None:
        """Return the last token for the enrolment of a robot."""
        record = self._values.get(("enrolment", robot))
        return record if isinstance(record, EnrolmentRecord) else None

    def is_revoked(self, certificate: Certificate) -> bool:
        """Return True if a certificate, or everything of its owner, was revoked."""
        holder = self.holder(certificate.identity.kind, certificate.identity.name)
        if holder is None:
            return False
        return holder.revoked or f"{certificate.serial:x}" in holder.refused

    def list(self) -> Iterator[Grant]:
        """Yield all grants but those of enrolments, sorted."""
        for (kind, name), value in sorted(self._values.items(), key=lambda item: item[0]):
            if isinstance(value, TokenRecord):
                yield Grant(kind="token", name=name, role=value.role, expires=value.expires)
            elif isinstance(value, Holder):
                ends = (value.serials or value.refused).values()
                yield Grant(
                    kind="robot" if kind == "robot" else "operator",
                    name=name,
                    role=value.role,
                    expires=max(ends, default=0.0),
                    revoked=value.revoked,
                )

    async def add_certificate(
        self,
        certificate: Certificate,
        actor: Mapping[str, Any],
        *,
        replace: bool,
        used: EnrolmentRecord | None = None,
    ) -> None:
        """Store a new certificate; `replace` revokes the earlier ones of its owner.

        `used` is the token that it was signed for, with the key; it is used up. Hold
        `writer.changing`.
        """
        identity = certificate.identity
        now = self._current(self.holder(identity.kind, identity.name))
        serials = {} if replace else now.serials
        refused = {**now.refused, **now.serials} if replace else now.refused
        serial = f"{certificate.serial:x}"
        holder = Holder({**serials, serial: certificate.not_after}, refused, identity.role)
        changed: dict[tuple[str, str], Value] = {(identity.kind, identity.name): holder}
        if used is not None:
            after = msgspec.structs.replace(used, used=True, serial=serial)
            changed["enrolment", identity.name] = after
        record = {**actor, "action": "access.certificate", "owner": str(identity)}
        revoked = f"{identity.kind} {identity.name}" if replace and now.serials else None
        await self._put(changed, {**record, "serial": serial}, revoked=revoked)

    async def put_token(
        self, kind: str, name: str, value: TokenRecord | EnrolmentRecord, actor: Mapping[str, Any]
    ) -> None:
        """Store a token. Hold `writer.changing`."""
        record = {**actor, "action": f"access.{kind}", "owner": name, "expires": value.expires}
        await self._put({(kind, name): value}, record)

    async def revoke(self, kind: Kind, name: str, actor: Mapping[str, Any]) -> int:
        """Revoke a robot, an operator or a token; return its number of certificates.

        Hold `writer.changing`.

        Raises:
            ControlError: there is no such robot, operator or token.
        """
        granted = self._values.get((kind, name))
        if granted is None and kind != "robot":
            raise ControlError("not-found", f"there is no {kind} `{name}`")
        record = {**actor, "action": "access.revoke", "owner": f"{kind} {name}"}
        if isinstance(granted, TokenRecord):
            deletes = [f"{PREFIX}{kind}/{name}"]
            await self._commit(record, revoked=f"{kind} {name}", deletes=deletes)
            self._forget(kind, name)
            return 0
        # Also a robot that this coordinator does not know: its certificate may be newer than the
        # backup that the store was restored from.
        now = self._current(granted if isinstance(granted, Holder) else None)
        holder = Holder({}, {**now.refused, **now.serials}, now.role, revoked=True)
        await self._put({(kind, name): holder}, record, revoked=f"{kind} {name}")
        return len(now.serials)

    def check_free(self, kind: Kind, name: str, limit: int) -> None:
        """Check that a name is new, or was revoked, and that there are not too many.

        Raises:
            ControlError: with the code `exists` or `busy`.
        """
        record = self._values.get((kind, name))
        if isinstance(record, TokenRecord) or (isinstance(record, Holder) and not record.revoked):
            raise ControlError(
                "exists",
                f"{kind} `{name}` exists already",
                f"`dorafleet revoke --{kind} {name}` first, or choose another name",
            )
        if sum(key[0] == kind for key in self._values) >= limit and record is None:
            raise ControlError("busy", f"there are {limit} {kind}s, the maximum", "revoke some")

    def _current(self, holder: Holder | None) -> Holder:
        """Return a holder without the certificates that are too old."""
        if holder is None:
            return Holder({})
        oldest = self.clock() - GRACE_S
        return Holder(
            {serial: end for serial, end in holder.serials.items() if end > oldest},
            {serial: end for serial, end in holder.refused.items() if end > oldest},
            holder.role,
            holder.revoked,
        )

    async def _put(
        self,
        values: Mapping[tuple[str, str], Value],
        record: Mapping[str, Any],
        *,
        revoked: str | None = None,
    ) -> None:
        puts = {f"{PREFIX}{kind}/{name}": value for (kind, name), value in values.items()}
        encoded = {key: msgspec.json.encode(value) for key, value in puts.items()}
        await self._commit(record, revoked=revoked, puts=encoded)
        for (kind, name), value in values.items():
            self._remember(kind, name, value)

    async def _commit(
        self,
        record: Mapping[str, Any],
        *,
        revoked: str | None = None,
        puts: Mapping[str, bytes] | None = None,
        deletes: Collection[str] = (),
    ) -> None:
        """Store a change; `revoked` is whose certificates or token it ends."""
        revocations = self.revocations
        if revoked is not None:
            added = Revocation(owner=revoked, at=self.clock())
            revocations = [*revocations, added][-MAX_REVOCATIONS:]
            puts = {**(puts or {}), REVOCATIONS: msgspec.json.encode(revocations)}
        try:
            await self._writer.commit(record, puts=puts, deletes=deletes)
        except StoreError as error:
            if error.code is Code.UNKNOWN:
                _log.warning("a grant may not have been written; reading the store")
                await uninterrupted(self.load())
            raise
        self.revocations = revocations

    def _remember(self, kind: str, name: str, value: Value) -> None:
        self._forget(kind, name)
        self._values[kind, name] = value
        if not isinstance(value, Holder):
            self._tokens[value.hash] = (kind, name)

    def _forget(self, kind: str, name: str) -> None:
        old = self._values.pop((kind, name), None)
        if old is not None and not isinstance(old, Holder):
            self._tokens.pop(old.hash, None)
