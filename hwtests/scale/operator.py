"""An operator who asks the coordinator, over TLS and with its token."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dorad.control.asyncclient import AsyncClient
from dorad.control.messages import Nothing
from dorad.control.target import Tcp, TlsFiles
from dorafleet.coordinator.messages import ROBOT_LIST, RobotList
from hwtests.scale.coordinator import ADDRESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hwtests.scale.coordinator import Coordinator


def client_of(coordinator: Coordinator) -> AsyncClient:
    """Return a client with the coordinator's token, to be opened."""
    state = coordinator.state
    target = Tcp(ADDRESS, coordinator.port, state / "token", TlsFiles(state / "authority.pem"))
    return AsyncClient(target)


@asynccontextmanager
async def operator(coordinator: Coordinator) -> AsyncIterator[Callable[[], Awaitable[RobotList]]]:
    """Connect, and yield what asks for the state of all robots, as `dorafleet status` does."""
    async with client_of(coordinator) as client:

        async def status() -> RobotList:
            return await client.call(ROBOT_LIST, Nothing())

        yield status
