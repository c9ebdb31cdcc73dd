"""Who connects: a robot or an operator by a certificate, a client by a token."""

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn
from weakref import WeakKeyDictionary

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request as HttpRequest
from websockets.protocol import State

from dorad.control.errors import ControlError
from dorad.control.incidentfiles import INCIDENTS_PATH
from dorad.control.messages.agent import FILES_PATH
from dorad.control.peer import Peer, PeerRole
from dorad.control.tls import GRACE_S, Certificate, Kind, certificate_of, judge
from dorafleet.ca.authority import Authority
from dorafleet.coordinator.grants import EnrolmentRecord, Grants
from dorafleet.coordinator.robot import unknown_robot
from dorafleet.coordinator.uploadmessages import COPIES_PATH

AGENT_PATH = "/agent"
"""Where only robots connect."""

CHECK_S = 1.0
"""Seconds between two looks for connections whose token or certificate has ended."""

REPORT_S = 1.0
"""Minimum seconds between two refusals in the log."""

_OWN_PATHS: Mapping[str, PeerRole] = {
    AGENT_PATH: "robot",
    FILES_PATH: "robot",
    INCIDENTS_PATH: "robot",
    COPIES_PATH: "coordinator",
}
"""Who alone may connect at a path, and at no other one."""
_BEARER = "Bearer "
_MAX_TOKEN = 256

_log = logging.getLogger(__name__)


class _Admitted(NamedTuple):
    """A peer that was admitted."""

    peer: Peer
    token: str
    """What it has sent; empty for one with a certificate."""
    ends: float
    """When its certificate or its token ends, by the coordinator's clock."""


class Access:
    """Admits clients and robots, and closes the connections of those that are not any more."""

    def __init__(
        self,
        grants: Grants,
        token: str,
        robots: Collection[str],
        admitted: Callable[[Any], object],
    ) -> None:
        """`token` is that of the coordinator's user; `robots` are the ids of the fleet.

        `admitted` is called with the address of every peer that is admitted.
        """
        self._grants = grants
        self._token = token
        self._robots = robots
        self._admitted = admitted
        self.on_refused: Callable[[str, str], object] = lambda robot, reason: None
        """Called with the id of a robot whose certificate is refused, and the reason."""
        self._reported_at = -REPORT_S
        self._unreported = 0
        self._open: WeakKeyDictionary[ServerConnection, _Admitted] = WeakKeyDictionary()

    def __call__(self, connection: ServerConnection, request: HttpRequest) -> Peer:
        """Return who connects. Raises ControlError to refuse the client."""
        try:
            peer, token = self._identify(connection, request)
            _check_path(peer, request.path)
        except ControlError as error:
            self._report(f"refused a client at {connection.remote_address}: {error.message}")
            raise
        _log.debug("admitted %s, %s, at %s", peer.name, peer.role, connection.remote_address)
        self._open[connection] = _Admitted(peer, token, self._end_of(peer, token))
        self._admitted(connection.remote_address)
        return peer

    def _report(self, refusal: str) -> None:
        """Log refusals, at a limited rate: any host can cause them."""
        now = time.monotonic()
        if now - self._reported_at < REPORT_S:
            self._unreported += 1
            _log.debug("%s", refusal)
            return
        more = f" ({self._unreported} more since the last one)" if self._unreported else ""
        _log.warning("%s%s", refusal, more)
        self._reported_at, self._unreported = now, 0

    async def run(self) -> NoReturn:
        """Close the connections, with their calls and streams, whose token or certificate ends."""
        while True:
            await asyncio.sleep(CHECK_S)
            now = self._grants.clock()
            self._close_refused([each for each, of in self._open.items() if of.ends <= now])

    def close_revoked(self) -> int:
        """Close the connections of peers that would be refused now; return their number."""
        return self._close_refused(list(self._open))

    def close_unsigned(self, authority: Authority) -> int:
        """Close the connections whose certificate is not of an authority; return their number."""
        closed = 0
        for connection, admitted in list(self._open.items()):
            tls = connection.transport.get_extra_info("ssl_object")
            shown = None if tls is None else tls.getpeercert(binary_form=True)
            if connection.state is not State.OPEN or not shown or authority.has_signed(shown):
                continue
            _log.info("closing a connection of %s: its authority is over", admitted.peer.name)
            connection.transport.abort()
            closed += 1
        return closed

    def _close_refused(self, connections: Iterable[ServerConnection]) -> int:
        closed = 0
        for connection in connections:
            admitted = self._open[connection]
            reason = self._refusal(admitted)
            if connection.state is not State.OPEN or not reason:
                continue
            _log.info("closing a connection of %s: %s", admitted.peer.name, reason)
            # Not `close`, which would wait for the peer.
            connection.transport.abort()
            closed += 1
        return closed

    def _identify(self, connection: ServerConnection, request: HttpRequest) -> tuple[Peer, str]:
        certificate = certificate_of(connection.transport.get_extra_info("ssl_object"))
        if certificate is not None:
            try:
                return self._owner(certificate), ""
            except ControlError as error:
                if certificate.identity.kind == "robot":
                    self.on_refused(certificate.identity.name, error.message)
                raise
        given = request.headers.get_all("Authorization")
        if len(given) != 1:
            raise _no_token("several tokens were sent" if given else "no token was sent")
        token = given[0].removeprefix(_BEARER)
        if token == given[0] or len(token) > _MAX_TOKEN:
            raise _no_token("the token is wrong")
        return self._bearer(token), token

    def _owner(self, certificate: Certificate) -> Peer:
        """Return the owner of a certificate that the fleet's authority has signed."""
        identity = certificate.identity
        if self._grants.is_revoked(certificate):
            raise ControlError(
                "refused",
                revoked_reason(identity.kind, identity.name),
                _how_to_renew(certificate),
            )
        if identity.kind == "robot" and identity.name not in self._robots:
            raise unknown_robot(identity.name, self._robots)
        validity = judge(certificate.not_before, certificate.not_after, self._grants.clock())
        # A robot whose certificate has expired is admitted for its renewal only.
        if validity.verdict == "too-old" or (
            validity.verdict == "expired" and identity.kind != "robot"
        ):
            raise ControlError(
                "refused",
                f"the certificate of {identity.kind} `{identity.name}` expired "
                f"{'1 day' if validity.days == 1 else f'{validity.days} days'} ago",
                _how_to_renew(certificate),
            )
        role = "coordinator" if identity.kind == "coordinator" else identity.role or "robot"
        return _peer(identity.name, role, certificate)

    def _bearer(self, token: str) -> Peer:
        # The library keeps bytes that are not ASCII as surrogates.
        if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token.encode()):
            return _peer("admin", "admin")
        known = self._grants.token(token)
        if known is None:
            raise _no_token("the token is wrong")
        name, record = known
        if record.expires < self._grants.clock():
            raise ControlError("refused", f"the token of `{name}` has expired", "make a new one")
        if isinstance(record, EnrolmentRecord):
            return _peer(name, "enrolling")
        return _peer(name, record.role)

    def _end_of(self, peer: Peer, token: str) -> float:
        """Return when a peer is refused if nothing changes until then."""
        if peer.certificate is not None:
            # That of a robot is renewed for some time after its end.
            grace = GRACE_S if peer.role == "robot" else 0.0
            return peer.certificate.not_after + grace
        known = self._grants.token(token)
        return float("inf") if known is None else known[1].expires

    def _refusal(self, admitted: _Admitted) -> str:
        """Return why a peer would be refused now, an empty text if it would not."""
        peer, token, _ = admitted
        try:
            if peer.certificate is None:
                now = self._bearer(token)
                same = (now.name, now.role) == (peer.name, peer.role)
                return "" if same else f"its token is now that of {now.name}, {now.role}"
            self._owner(peer.certificate)
        except ControlError as error:
            return error.message
        return ""


def revoked_reason(kind: Kind, name: str) -> str:
    """Return why the owner of a revoked certificate is refused."""
    return f"the certificate of {kind} `{name}` was revoked"


def _peer(name: str, role: PeerRole, certificate: Certificate | None = None) -> Peer:
    """Return a peer that acts as the coordinator's user."""
    return Peer(0, os.geteuid(), os.getegid(), name=name, role=role, certificate=certificate)


def _check_path(peer: Peer, path: str) -> None:
    whose = _OWN_PATHS.get(path, "")
    if peer.role in _OWN_PATHS.values() and peer.role != whose:
        own = next(each for each, role in _OWN_PATHS.items() if role == peer.role)
        raise ControlError("refused", f"{peer.role} `{peer.name}` may connect at `{own}` only")
    if whose and peer.role != whose:
        raise ControlError("refused", f"`{path}` is for {whose}s that have a certificate")


def _no_token(message: str) -> ControlError:
    return ControlError(
        "refused",
        message,
        "show a certificate of this fleet, or send `Authorization: Bearer TOKEN` with the content "
        "of the coordinator's token file",
    )


def _how_to_renew(certificate: Certificate) -> str:
    name = certificate.identity.name
    if certificate.identity.kind == "robot":
        return f"enrol it again: `dorafleet enrol CLUSTER.yml {name}`"
    return f"an admin can make a new one: `dorafleet operator add {name}`"
