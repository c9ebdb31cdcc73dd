"""The client of a robot's agent, over the connection that the agent has opened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from dorad.control import faults
from dorad.control.asyncclient import AsyncClient
from dorad.control.connecting import CONNECT_S
from dorad.control.messages import METHODS
from dorad.control.messages.agent import AGENT_METHODS
from dorad.control.pending import PendingRequests, check_welcome, hello

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection


async def connect_agent(connection: ServerConnection, robot: str) -> AsyncClient:
    """Shake hands. Raises ControlError."""
    client = AsyncClient(Path(robot), name="dorafleet")
    client._requests = PendingRequests({**METHODS, **AGENT_METHODS})
    client._connection = connection
    client.path, client._pid = Path(robot), None
    try:
        async with asyncio.timeout(CONNECT_S):
            await connection.send(hello("dorafleet"), text=True)
            client.daemon = check_welcome(await connection.recv())
    except ConnectionClosed:
        raise faults.connection_closed(None) from None
    return client
