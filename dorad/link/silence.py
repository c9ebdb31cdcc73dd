"""Why a router gives no session: Zenoh says the same of all reasons."""

from __future__ import annotations

import base64
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dorad.link.config import Tls

TIMEOUT_S = 1.5
"""Two round trips of a satellite. Meanwhile the router is not tried again."""


def why_silent(endpoint: str, tls: Tls | None) -> str:
    """Connect to an endpoint such as `tls/10.0.0.9:7447`, and return why it gives no session.

    It is asked without a certificate, which needs no key: whether it would accept that of this
    machine is not known then.
    """
    host, _, port = endpoint.partition("/")[2].partition("?")[0].partition("#")[0].rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
    except (OSError, ValueError, OverflowError) as error:
        return f"nothing answers there: {getattr(error, 'strerror', None) or error}"
    with connection:
        if tls is None:
            return "what answers there is no Zenoh router"
        try:
            with _context(tls).wrap_socket(connection):
                return "it refuses this machine's certificate, or is no Zenoh router"
        except ssl.SSLCertVerificationError:
            return "its certificate is not of this fleet"
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            return f"what answers there does not complete the TLS handshake: {reason}"


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As in a link, any address of a certificate is accepted, and the issuer of robots is trusted.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=base64.b64decode(tls.ca).decode("ascii"))
    return context
