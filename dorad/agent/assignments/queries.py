"""Ask the daemon for the health of a dataflow, and the coordinator for a sign of life."""

import logging
import re
import time
from collections.abc import Awaitable, Callable

from dorad.agent.assignments.health import Measurement
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import (
    DAEMON_STATUS,
    DATAFLOW_LIST,
    LEASE_LIST,
    NODE_LIST,
    TOP,
    DaemonStatus,
    NodeInfo,
    Nothing,
    Ref,
    Reservation,
)
from dorad.control.messages.releases import Lease

_log = logging.getLogger(__name__)


def clock() -> float:
    """Return the seconds since the boot, with those of sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Contact:
    """When the coordinator last sent something, by `clock`."""

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        """`ask` asks the coordinator for a sign of life, and returns whether it came."""
        self._ask = ask
        self.at: float | None = None

    def heard(self) -> None:
        """Record a sign of life."""
        self.at = clock()

    async def renew(self) -> None:
        """Ask for a sign of life."""
        if await self._ask():
            self.heard()


async def measure(client: AsyncClient, name: str, uuid: str) -> Measurement:
    """Return the daemon's figures of a dataflow. Raises ControlError."""
    top = await client.call(TOP, Nothing())
    at = clock()
    sent: dict[str, int] = {}
    for edge in top.edges:
        if edge.dataflow == uuid:
            sent[edge.source] = max(edge.sent, sent.get(edge.source, 0))
    own = [node for node in top.nodes if node.dataflow == uuid]
    return Measurement(at, own, sent, await notices(client, name, uuid))


async def is_running(client: AsyncClient, uuid: str) -> bool:
    """Return True if a dataflow runs, and is not being stopped. Raises ControlError."""
    dataflows = (await client.call(DATAFLOW_LIST, Nothing())).dataflows
    return any(each.uuid == uuid and each.status == "running" for each in dataflows)


async def nodes(client: AsyncClient, uuid: str) -> list[NodeInfo]:
    """Return the nodes of a running dataflow. Raises ControlError."""
    return (await client.call(NODE_LIST, Ref(dataflow=uuid))).nodes


async def notices(client: AsyncClient, name: str, uuid: str) -> list[str]:
    """Return the warnings of the daemon that concern a dataflow. Raises ControlError."""
    status = await client.call(DAEMON_STATUS, Nothing())
    return notices_about(status, name, uuid)


def notices_about(status: DaemonStatus, name: str, uuid: str) -> list[str]:
    """Return the warnings that name a dataflow, and why no node can be started.

    Others, such as a full disk or a lease that cannot be stored, say nothing about a release.
    """
    names = re.compile(rf"\bdataflow ({re.escape(name)}|{re.escape(uuid)})(?![\w.-]*\w)")
    about = [text for text in status.notices if names.search(text)]
    return [*about, *filter(None, [status.problem])]


async def reserve(client: AsyncClient, key: str, seconds: float) -> Reservation:
    """Let no lease begin for some seconds, or again with 0 seconds. Raises ControlError."""
    try:
        return await client.reserve_leases(key, seconds)
    except ControlError as error:
        if error.code != "unknown-method":
            raise
        _log.debug("this dorad is older and reserves nothing")
        return Reservation(left=seconds)


async def leases(client: AsyncClient) -> list[Lease]:
    """Return the leases that make this robot busy. Raises ControlError."""
    try:
        answer = await client.call(LEASE_LIST, Nothing())
    except ControlError as error:
        if error.code != "unknown-method":
            raise
        _log.debug("this dorad is older and has no leases")
        return []
    return answer.leases
