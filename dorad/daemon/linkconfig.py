"""The configuration of the link process of a share."""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.control.errors import ControlError
from dorad.link.config import ChannelIn, ChannelOut, LinkConfig, Tls

if TYPE_CHECKING:
    from dorad.control.messages import LinkTls, Share
    from dorad.dataflow.model import Link

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


def link_config(dataflow_id: str, share: Share, tls: Tls | None, link: Link) -> dict[str, Any]:
    """Return the configuration for the channels of `link`, as plain values.

    Raises:
        ControlError: the name of a machine cannot be used in the network.
    """
    config = LinkConfig(
        dataflow=dataflow_id,
        machine=share.machine,
        listen=share.listen,
        connect=share.connect,
        tls=tls,
        outgoing=[
            ChannelOut(each.name, each.machine, each.input, each.reliable) for each in link.outgoing
        ],
        incoming=[ChannelIn(each.name, each.machine, each.name) for each in link.incoming],
    )
    found: dict[str, Any] = msgspec.to_builtins(config)
    try:
        msgspec.convert(found, LinkConfig)
    except msgspec.ValidationError as error:
        raise ControlError("bad-request", f"the share is not valid: {error}") from error
    return found
