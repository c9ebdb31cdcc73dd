"""Create and revoke the certificates and tokens of robots, operators and programs."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.messages.agent import Certificates, Csr
from dorad.control.messages.enrolment import ENROL_SIGN, EnrolSign
from dorad.control.peer import Peer
from dorad.control.session import Call, handles
from dorad.control.tls import Identity, is_name
from dorafleet.ca.authority import key_digest
from dorafleet.coordinator import accessmessages as m
from dorafleet.coordinator.access import Access, revoked_reason
from dorafleet.coordinator.accessmessages import (
    ACCESS_LIST,
    ACCESS_REVOKE,
    ENROL_TOKEN,
    OPERATOR_ADD,
    TOKEN_CREATE,
)
from dorafleet.coordinator.grants import EnrolmentRecord, Grants, TokenRecord, digest
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.robot import unknown_robot
from dorafleet.coordinator.writer import Writer, actor_of

ENROLMENT_S = 15 * 60.0
"""Seconds for which the token of an enrolment is valid."""

MAX_DAYS = 3650
MAX_TOKENS = 1000
_DAY_S = 86400.0

_log = logging.getLogger(__name__)


class Enrolments:
    """Answers the methods about certificates and tokens, and renews the certificates of robots."""

    def __init__(
        self,
        grants: Grants,
        access: Access,
        writer: Writer,
        hand_overs: HandOvers,
        robots: Collection[str],
        *,
        tls: bool,
        on_enrolled: Callable[[str], object],
        on_revoked: Callable[[str], Awaitable[None]],
    ) -> None:
        """`hand_overs` has the authorities that sign; `robots` are the ids of the fleet.

        Without `tls` none of them can connect.
        `on_enrolled` is called with the id of a robot whose earlier certificates are revoked;
        `on_revoked` with one that is to be in the fleet no more, before its connection is closed.
        """
        self._grants = grants
        self._access = access
        self._writer = writer
        self._hand_overs = hand_overs
        self._hand_over = hand_overs.state
        self._robots = robots
        self._tls = tls
        self._on_enrolled = on_enrolled
        self._on_revoked = on_revoked

    async def renew(self, peer: Peer, csr: Csr) -> Certificates:
        """Return a new certificate for a robot that has connected with an earlier one.

        Raises:
            ControlError: the request is wrong, or the robot was revoked meanwhile.
            StoreError: the store cannot be written.
        """
        certificate = peer.certificate
        assert certificate is not None
        async with self._writer.changing:
            if self._grants.is_revoked(certificate):
                raise ControlError("refused", f"robot `{peer.name}` was revoked")
            authority = self._hand_over.for_robot(peer.name)
            issued = authority.issue(csr.csr, certificate.identity)
            if authority is not self._hand_over.current:
                await self._hand_over.offered(peer.name)
            actor = {"peer": peer.name, "role": peer.role}
            await self._grants.add_certificate(issued.certificate, actor, replace=False)
        return Certificates(chain=issued.chain, authority=authority.certificate)

    async def dismiss(self, robot: str, actor: Mapping[str, Any]) -> None:
        """Refuse the certificates of a robot that leaves the fleet. Hold `writer.changing`."""
        await self._grants.revoke("robot", robot, actor)

    @handles(ENROL_SIGN)
    async def _sign(self, call: Call, params: EnrolSign) -> Certificates:
        robot = self._checked_robot(params.robot)
        async with self._writer.changing:
            enrolment = None
            if call.peer.role == "enrolling":
                enrolment = self._usable_enrolment(call.peer.name, params)
            holder = self._grants.holder("robot", robot)
            again = params.again or (enrolment is not None and enrolment.used)
            if holder is not None and not holder.revoked and not again:
                raise ControlError(
                    "exists",
                    f"robot `{robot}` is enrolled already, with another key",
                    "two machines cannot have one id; if this one replaces the other, "
                    f"`dorafleet revoke {robot}` first, or enrol it with `--again`",
                )
            authority = self._hand_over.current
            issued = authority.issue(params.csr, Identity("robot", robot))
            await self._grants.add_certificate(
                issued.certificate, actor_of(call), replace=True, used=enrolment
            )
            await self._hand_over.enrolled(robot)
            self._access.close_revoked()
        self._on_enrolled(robot)
        return Certificates(chain=issued.chain, authority=authority.certificate)

    def _usable_enrolment(self, name: str, params: EnrolSign) -> EnrolmentRecord:
        """Return the token of a robot for the key in its request. Raises ControlError.

        One that was used is good for the same key once more: the answer may have been lost.
        """
        enrolment = self._grants.enrolment(name)
        if params.robot != name:
            raise ControlError("refused", f"the token is for robot `{name}`")
        if params.again:
            raise ControlError("refused", "a token enrols only a robot that has no certificate")
        key = key_digest(params.csr)
        if enrolment is None or enrolment.expires < self._grants.clock():
            raise ControlError("refused", f"the token for `{name}` has expired")
        if enrolment.used:
            holder = self._grants.holder("robot", name)
            valid = {} if holder is None or holder.revoked else holder.serials
            if enrolment.key != key or enrolment.serial not in valid:
                raise ControlError("refused", f"the token for `{name}` was used already")
            _log.info("robot `%s` asks again for its certificate", name)
        return msgspec.structs.replace(enrolment, key=key)

    @handles(ENROL_TOKEN)
    async def _make_enrolment(self, call: Call, params: m.EnrolRef) -> m.EnrolToken:
        robot = self._checked_robot(params.robot)
        token = secrets.token_hex(32)
        expires = self._grants.clock() + ENROLMENT_S
        async with self._writer.changing:
            record = EnrolmentRecord(digest(token), expires)
            await self._grants.put_token("enrolment", robot, record, actor_of(call))
            # Connections with the token before, which this one replaces.
            self._access.close_revoked()
        return m.EnrolToken(
            token=token,
            expires=expires,
            authority=self._hand_over.current.certificate,
            fingerprint=self._hand_over.current.fingerprint,
        )

    @handles(TOKEN_CREATE)
    async def _create_token(self, call: Call, params: m.TokenCreate) -> m.Token:
        name, days = _checked_name(params.name), _checked_days(params.days)
        token = secrets.token_hex(32)
        expires = self._grants.clock() + days * _DAY_S
        async with self._writer.changing:
            self._grants.check_free("token", name, MAX_TOKENS)
            record = TokenRecord(digest(token), params.role, expires)
            await self._grants.put_token("token", name, record, actor_of(call))
        return m.Token(token=token, expires=expires)

    @handles(OPERATOR_ADD)
    async def _add_operator(self, call: Call, params: m.OperatorAdd) -> m.Bundle:
        identity = Identity("operator", _checked_name(params.name), params.role)
        days = _checked_days(params.days)
        async with self._writer.changing:
            replaces = self._hand_over.replaces(params.name)
            if not replaces:
                self._grants.check_free("operator", params.name, MAX_TOKENS)
            pair = self._hand_over.for_operators.issue_pair(identity, days=days)
            certificate = pair.issued.certificate
            # That of the old authority is good until the hand-over ends.
            await self._grants.add_certificate(certificate, actor_of(call), replace=not replaces)
            await self._hand_over.added(params.name)
        pem = pair.key + pair.issued.chain + self._hand_over.trusted
        return m.Bundle(pem=pem, expires=certificate.not_after)

    @handles(ACCESS_REVOKE)
    async def _revoke(self, call: Call, params: m.Revoke) -> m.Revoked:
        _checked_name(params.name)
        if params.kind == "robot" and params.name not in self._robots:
            raise unknown_robot(params.name, self._robots)
        async with self._writer.changing:
            count = await self._grants.revoke(params.kind, params.name, actor_of(call))
        if params.kind == "robot":
            await self._on_revoked(params.name)
            self._on_enrolled(params.name)
            # One that is away, as after an uninstall, may never come and be refused.
            self._access.on_refused(params.name, revoked_reason("robot", params.name))
        return m.Revoked(certificates=count, connections=self._access.close_revoked())

    @handles(ACCESS_LIST)
    async def _list(self, call: Call, params: Nothing) -> m.GrantList:
        return m.GrantList(grants=list(self._grants.list()))

    @handles(m.AUTHORITY_STATUS)
    async def _show_authority(self, call: Call, params: Nothing) -> m.AuthorityStatus:
        state, record = self._hand_over, self._hand_over.record
        status = m.AuthorityStatus(fingerprint=state.current.fingerprint)
        if record is None:
            return status
        return msgspec.structs.replace(
            status,
            previous=record.previous,
            next=record.next,
            begun=record.begun,
            ends=record.ends,
            finished=record.finished or None,
            cancelled=record.cancelled or None,
            waiting=[] if record.cancelled else state.waiting(),
            old=state.old(),
            operators=state.operators(new=bool(record.cancelled)),
            trusting=state.trusting() if record.cancelled else [],
        )

    @handles(m.AUTHORITY_HAND_OVER)
    async def _begin(self, call: Call, params: m.AuthorityRef) -> m.AuthorityStatus:
        if not self._tls:
            raise _without_tls()
        await self._hand_overs.begin(params.fingerprint, actor_of(call))
        return await self._show_authority(call, Nothing())

    @handles(m.AUTHORITY_FINISH)
    async def _finish(self, call: Call, params: m.AuthorityFinish) -> m.AuthorityFinished:
        left = await self._hand_overs.finish(actor_of(call), force=params.force)
        operators = self._hand_over.operators(new=False)
        return m.AuthorityFinished(
            fingerprint=self._hand_over.current.fingerprint, robots=left, operators=operators
        )

    @handles(m.AUTHORITY_CANCEL)
    async def _cancel(self, call: Call, params: Nothing) -> m.AuthorityCancelled:
        operators = await self._hand_overs.cancel(actor_of(call))
        return m.AuthorityCancelled(
            fingerprint=self._hand_over.current.fingerprint,
            robots=self._hand_over.trusting(),
            operators=operators,
        )

    def _checked_robot(self, id_: str) -> str:
        if not self._tls:
            raise _without_tls()
        if id_ not in self._robots:
            raise unknown_robot(id_, self._robots)
        return id_


def _without_tls() -> ControlError:
    return ControlError(
        "refused",
        "robots need TLS, and this coordinator listens without it",
        "start it with `dorafleet serve --listen ADDRESS`, or with `--tls`",
    )


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise ControlError(
            "bad-request", f"`{name[:100]}` is not a name", "letters, digits, `_`, `-` and `.`"
        )
    return name


def _checked_days(days: int) -> int:
    if not 0 < days <= MAX_DAYS:
        raise ControlError("bad-request", f"`days` must be from 1 to {MAX_DAYS}")
    return days
