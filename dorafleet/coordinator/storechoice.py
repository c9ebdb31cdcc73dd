"""Which store a coordinator uses: a file in its folder, or an etcd cluster."""

import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from dorad.control.errors import ControlError
from dorad.control.privatefile import check_private
from dorafleet.store.etcd import EtcdStore
from dorafleet.store.model import Store
from dorafleet.store.sqlite import SqliteStore

DATABASE = "coordinator.db"


async def open_store(
    folder: Path,
    etcd: Sequence[str],
    *,
    authority: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Store:
    """Open the file in `folder`, or connect to the members of etcd at these addresses.

    `authority` signs the members' certificates; `certificate` and `key` are this client's.

    Raises:
        ProblemError: the store cannot be used; or etcd would be reached without TLS over a network.
    """
    if not etcd:
        return await SqliteStore.open(folder / DATABASE)
    for url in etcd:
        if urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname):
            raise ControlError(
                "refused", f"{url} leaves this machine without TLS", "use https, or loopback"
            )
    return await EtcdStore.open(etcd, tls=_context(authority, certificate, key))


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _context(authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError, too
        raise ControlError("refused", f"the certificates of etcd cannot be used: {error}") from None
    if (secret := key or certificate) is not None:
        check_private(secret)
    return context
