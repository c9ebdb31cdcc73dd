"""Renew the certificates of robots over their open connections, before they expire."""

import logging
import time
from collections.abc import Awaitable, Callable

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.messages.agent import AGENT_CERTIFY, AGENT_RENEW, Certificates, Csr
from dorad.control.peer import Peer
from dorad.control.tls import judge
from dorad.jitter import between
from dorad.problems import ProblemError

Sign = Callable[[Peer, Csr], Awaitable[Certificates]]
"""Returns a new certificate for a request of this peer. Raises ProblemError."""

AGAIN_S = 3600.0
"""Seconds between two checks of a certificate's dates."""

_log = logging.getLogger(__name__)


class Renewal:
    """Watches the certificate of one connection."""

    def __init__(self, client: AsyncClient, peer: Peer, sign: Sign | None) -> None:
        """`sign` is None where there are no certificates."""
        self._client = client
        self._peer = peer
        self._sign = sign
        self._next = 0.0
        self._renewed = False

    async def before_use(self) -> None:
        """Renew an expired certificate, with which a robot may do nothing else.

        Raises:
            ProblemError: it cannot be renewed.
        """
        if self._verdict() == "expired":
            await self._renew()

    async def when_due(self) -> None:
        """Renew the certificate if it is due, and log a failure."""
        if self._renewed or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + between(AGAIN_S / 2, AGAIN_S)
        if self._verdict() == "renew":
            try:
                await self._renew()
            except ProblemError as error:
                _log.warning("the certificate of `%s` is not renewed: %s", self._peer.name, error)

    def _verdict(self) -> str:
        certificate = self._peer.certificate
        if certificate is None or self._renewed:
            return "valid"
        return judge(certificate.not_before, certificate.not_after, time.time()).verdict

    async def renew(self) -> None:
        """Renew the certificate now. Raises ProblemError."""
        if self._renewed:
            raise ControlError("conflict", "it has another certificate, and connects with that")
        await self._renew()

    async def _renew(self) -> None:
        if self._sign is None:
            raise ControlError("refused", "no authority renews certificates here")
        csr = await self._client.call(AGENT_RENEW, Nothing())
        certificates = await self._sign(self._peer, csr)
        await self._client.call(AGENT_CERTIFY, certificates)
        self._renewed = True
        _log.info("renewed the certificate of robot `%s`", self._peer.name)
