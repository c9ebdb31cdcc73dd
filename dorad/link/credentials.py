"""The certificates of a link process, read before it gives up its privileges."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dorad.link.config import Tls


class Credentials(NamedTuple):
    """The contents of the files that `Tls` names, in base64, as Zenoh accepts them."""

    ca: str
    certificate: str
    key: str
    verify_name: bool


def read(tls: Tls) -> Credentials:
    """Read the files.

    Raises:
        RuntimeError: one of them cannot be read.
    """
    try:
        texts = [_encoded(path) for path in (tls.ca, tls.certificate, tls.key)]
    except OSError as error:
        raise RuntimeError(f"{error.filename} cannot be read: {error.strerror}") from error
    ca, certificate, key = texts
    return Credentials(ca, certificate, key, tls.verify_name)


def _encoded(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()
