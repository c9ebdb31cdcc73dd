"""An operator who asks the coordinator, over TLS and with its token."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dorad.control.asyncclient import AsyncClient
from dorad.control.messages import Nothing
from dorad.control.target import Tcp, TlsFiles
from dorafleet.coordinator.loadmessages import FLEET_LOAD, FleetLoadQuery, FleetLoads
from dorafleet.coordinator.messages import ROBOT_LIST, RobotList
from hwtests.scale.coordinator import ADDRESS, Coordinator


def client_of(coordinator: Coordinator) -> AsyncClient:
    """Return a client with the coordinator's token, to be opened."""
    state = coordinator.state
    target = Tcp(ADDRESS, coordinator.port, state / "token", TlsFiles(state / "authority.pem"))
    return AsyncClient(target)


@asynccontextmanager
async def operator(
    coordinator: Coordinator,
) -> AsyncIterator[tuple[Callable[[], Awaitable[RobotList]], Callable[[], Awaitable[FleetLoads]]]]:
    """Connect, and yield what asks for the state of all robots, as `dorafleet status` does.

    The second one measures all robots, as `dorafleet top` does.
    """
    async with client_of(coordinator) as client:

        async def status() -> RobotList:
            return await client.call(ROBOT_LIST, Nothing())

        async def load() -> FleetLoads:
            return await client.call(FLEET_LOAD, FleetLoadQuery())

        yield status, load
