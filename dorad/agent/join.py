"""Enrol this robot with a token, over the network instead of over SSH."""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.agent.identity import Enrolment, Identity, checked
from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.control.messages.enrolment import ENROL_SIGN, EnrolSign
from dorad.control.target import Tcp, TlsFiles
from dorad.control.token import is_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.agent.identitystore import IdentityStore
    from dorad.control.messages.agent import Certificates


_LOST = ("unavailable", "deadline", "busy")
"""Codes of errors after which another coordinator is asked; this one may have signed, too."""

_HINT = (
    "copy the whole command, and the token, that `dorafleet enrol CLUSTER.yml ROBOT --token` "
    "prints; each is good once, for 15 minutes"
)


def join(
    identities: IdentityStore,
    robot: str,
    coordinators: Sequence[str],
    token: str,
    authority: str,
    *,
    replace: bool = False,
) -> Identity:
    """Ask the first coordinator that answers for a certificate, and use it.

    `authority` is the certificate of the fleet's authority (PEM): only a coordinator that it has
    signed gets the token. `replace` replaces an identity of the same id only: the command may have
    been copied to the wrong robot. Call it again if the answer is lost: the token is good for the
    same key.

    Raises:
        ControlError: none answers, or one refuses.
    """
    _, addresses = checked(robot, list(coordinators))
    if not is_token(token):
        raise ControlError("bad-request", "what was given is not a token", _HINT)
    identities.refuse_other(robot)
    csr = identities.request(robot, replace=replace, same_key=True)
    try:
        certificates = _sign(addresses, EnrolSign(robot=robot, csr=csr), token, authority)
        if certificates.authority.strip() != authority.strip():
            raise ControlError("refused", "the coordinator's answer names another authority")
        enrolment = Enrolment(robot, list(coordinators), certificates.chain, authority)
        return identities.enrol(enrolment, replace=replace)
    except ControlError as error:
        if error.code not in _LOST:
            identities.cancel()
        raise


def authority_of(text: str) -> str:
    """Return the certificate (PEM) in the base64 text that `dorafleet enrol --token` prints.

    Raises:
        ControlError: it is not one, or is damaged.
    """
    from dorad.agent import keys

    try:
        pem = ssl.DER_cert_to_PEM_cert(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        pem = ""
    # TLS does not check this signature, and the token would be used up.
    if not keys.is_whole(pem):
        raise ControlError(
            "bad-request", "`--authority` is damaged: it is not a certificate in base64", _HINT
        )
    return pem


def _sign(
    addresses: Sequence[tuple[str, int]], request: EnrolSign, token: str, authority: str
) -> Certificates:
    failures: list[ControlError] = []
    with tempfile.TemporaryDirectory(prefix="dorad-agent-") as name:
        secret, ca = Path(name) / "token", Path(name) / "authority.pem"
        # The group of dorad, which may read an identity, is none of a client's token.
        secret.touch(mode=0o600)
        secret.write_text(token)
        ca.write_text(authority)
        for host, port in addresses:
            target = Tcp(host, port, token=secret, tls=TlsFiles(ca))
            try:
                with Client(target, name=f"dorad-agent {__version__}") as client:
                    return client.call(ENROL_SIGN, request)
            except ControlError as error:
                if error.code == "refused":
                    # The hint is for clients that have a token in a file.
                    raise ControlError(error.code, error.message, _HINT) from error
                if error.code not in _LOST:
                    raise
                failures.append(error)
    raise failures[-1]
