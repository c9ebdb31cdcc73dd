"""The link process of a share: its configuration, and what it reports."""

import base64
import os
import stat
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import LinkTls, Share
from dorad.daemon.broker.broker import Broker
from dorad.daemon.rules.links import Links
from dorad.dataflow.model import Dataflow, Link
from dorad.link.config import MAX_MACHINES, ChannelIn, ChannelOut, LinkConfig, Tls

MAX_PEM = 1 << 18
"""Bytes of one file with certificates or a key."""


def read_tls(tls: LinkTls) -> Tls:
    """Return the contents of the files of a share.

    The daemon reads them, because the link process, like a node, must not be able to: the key
    belongs to the agent. The certificates of a fleet name machines, not addresses, so the address
    of a machine is not compared with its certificate.

    Raises:
        ControlError: a file cannot be read.
    """
    ca, certificate, key = (_read_pem(path) for path in (tls.ca, tls.certificate, tls.key))
    return Tls(ca, certificate, key, verify_name=False)


def _read_pem(path: str) -> str:
    try:
        # A path may name anything, such as a pipe, which must not block the daemon.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ControlError("refused", f"{path} is not a file")
            content = os.read(descriptor, MAX_PEM + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ControlError("refused", f"{path} cannot be read: {reason}") from error
    if len(content) > MAX_PEM:
        raise ControlError("refused", f"{path} is too large for a certificate or a key")
    return base64.b64encode(content).decode()


class ShareLink:
    """Keeps the link process of a dataflow configured."""

    def __init__(self, dataflow_id: str, share: Share | None, links: Links, broker: Broker) -> None:
        """`broker` configures the present and later processes; `links` is what they report.

        Raises:
            ControlError: the certificates of the share cannot be read.
        """
        self.links = links
        self._dataflow_id = dataflow_id
        self._broker = broker
        self._share: Share | None = None
        self._tls: Tls | None = None
        if share is not None:
            self.renew(share)

    @staticmethod
    def of(dataflow: Dataflow) -> Link | None:
        """Return the channels of a dataflow; None if it has no link."""
        return next((node.link for node in dataflow.nodes if node.link is not None), None)

    def renew(self, share: Share) -> None:
        """Use the addresses and certificates of this share from the next `use` on.

        Raises:
            ControlError: the certificates cannot be read.
        """
        self._tls = None if share.tls is None else read_tls(share.tls)
        self._share = share

    def use(self, link: Link | None) -> None:
        """Let the link process have these channels.

        Raises:
            ControlError: the name of a machine cannot be used in the network.
        """
        self.links.expect(link)
        if self._share is not None and link is not None:
            self._broker.set_link(_config(self._dataflow_id, self._share, self._tls, link))


def _config(dataflow_id: str, share: Share, tls: Tls | None, link: Link) -> dict[str, Any]:
    """Return the configuration for the channels of `link`, as plain values.

    Raises:
        ControlError: the name of a machine cannot be used in the network.
    """
    config = LinkConfig(
        dataflow=dataflow_id,
        machine=share.machine,
        listen=share.listen,
        connect=share.connect,
        connect_to=share.connect_to,
        router=share.router,
        tls=tls,
        outgoing=[
            ChannelOut(each.name, each.machine, each.input, each.reliable) for each in link.outgoing
        ],
        incoming=[ChannelIn(each.name, each.machine, each.name) for each in link.incoming],
    )
    if len(config.peers) > MAX_MACHINES:
        raise ControlError(
            "refused",
            f"{share.machine} would need links to {len(config.peers)} machines; a link process "
            f"has at most {MAX_MACHINES}",
            "let fewer machines exchange messages with this one, or divide the dataflow",
        )
    plain: dict[str, Any] = msgspec.to_builtins(config)
    try:
        msgspec.convert(plain, LinkConfig)
    except msgspec.ValidationError as error:
        raise ControlError("bad-request", f"the share is not valid: {error}") from error
    return plain
