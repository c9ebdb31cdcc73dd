"""Why a router or another machine gives no session: Zenoh says the same of all reasons."""

import base64
import socket
import ssl
import threading
from collections.abc import Collection, Mapping
from typing import Any

from dorad.link.access import MAX_COMMON_NAME
from dorad.link.config import LinkConfig, Tls

TIMEOUT_S = 1.5
"""Two round trips of a satellite. Meanwhile the router is not tried again."""

PATIENCE_S = 3.0
"""Seconds without a link after which its address is asked for the reason."""

EVERY_S = 10.0
"""Seconds between two rounds of questions."""


class Silence:
    """Asks machines that this one connects to directly why they give no link, in a thread."""

    def __init__(self, config: LinkConfig) -> None:
        self._endpoints = dict(zip(config.connect_to, config.connect, strict=False))
        self._tls = config.tls
        self._reasons: dict[str, str] = {}
        self._due_s: float | None = None
        self._thread: threading.Thread | None = None

    def ask(self, absent: Collection[str], now_s: float) -> None:
        """Ask the machines without a link, if it is time."""
        wanted = [name for name in absent if name in self._endpoints]
        if not wanted:
            self._due_s = None
            self._reasons = {}
            return
        if self._due_s is None:
            self._due_s = now_s + PATIENCE_S
        if now_s < self._due_s or self.asking:
            return
        self._due_s = now_s + EVERY_S
        self._thread = threading.Thread(target=self._ask, args=(wanted,), daemon=True)
        self._thread.start()

    @property
    def asking(self) -> bool:
        """Whether machines are being asked now."""
        return self._thread is not None and self._thread.is_alive()

    def _ask(self, names: Collection[str]) -> None:
        answers = {}
        for name in names:
            endpoint = self._endpoints[name]
            answers[name] = f"at {endpoint}: {why_silent(endpoint, self._tls, name)}"
        self._reasons = answers

    def reason(self, name: str) -> str:
        """Return why a machine gave no link when it was asked; empty if it was not."""
        return self._reasons.get(name, "")


def why_silent(endpoint: str, tls: Tls | None, machine: str | None = None) -> str:
    """Connect to an endpoint such as `tls/10.0.0.9:7447`, and return why it gives no session.

    Without `machine` it is that of a router. It is asked without a certificate, which needs no key:
    whether it would accept that of this machine is not known then.
    """
    what = "Zenoh router" if machine is None else "link process"
    host, _, port = endpoint.partition("/")[2].partition("?")[0].partition("#")[0].rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
    except (OSError, ValueError, OverflowError) as error:
        return f"nothing answers there: {getattr(error, 'strerror', None) or error}"
    with connection:
        if tls is None:
            return f"what answers there is no {what}"
        try:
            with _context(tls).wrap_socket(connection) as server:
                owner = _owner(server)
        except ssl.SSLCertVerificationError:
            return "its certificate is not of this fleet"
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            return f"what answers there does not complete the TLS handshake: {reason}"
    if machine is None:
        return "it refuses this machine's certificate, or is no Zenoh router"
    if owner != machine[:MAX_COMMON_NAME]:
        return f"its certificate is that of {owner}, not of {machine}"
    return "it refuses this machine's certificate, or serves another dataflow"


def _owner(server: ssl.SSLSocket) -> str:
    """Return the common name in the certificate that a server has shown."""
    certificate: Mapping[str, Any] = server.getpeercert() or {}
    names = dict(pair for part in certificate.get("subject", ()) for pair in part)
    return str(names.get("commonName", "nobody"))


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As in a link, any address of a certificate is accepted, and the issuer of robots is trusted.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=base64.b64decode(tls.ca).decode("ascii"))
    return context
