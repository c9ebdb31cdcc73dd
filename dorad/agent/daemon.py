"""The agent's connections to the robot's daemon, opened again whenever dorad is restarted."""

import asyncio
import logging
from pathlib import Path

from dorad.control.asyncclient import AsyncClient

_log = logging.getLogger(__name__)


class Daemon:
    """One connection to dorad, which is kept open."""

    def __init__(self, path: Path, name: str) -> None:
        """`path` is dorad's control socket; `name` is the client's."""
        self._path = path
        self._name = name
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def client(self) -> AsyncClient:
        """Return a client that is connected.

        Raises:
            ControlError: with code `unavailable` while dorad does not run.
        """
        async with self._opening:
            if self._client is not None and not self._client.connected:
                await self.close()
            if self._client is None:
                self._client = await AsyncClient(self._path, name=self._name).open()
                _log.debug("connected to %s", self._client.daemon)
            return self._client

    async def close(self) -> None:
        """End the connection, and with it all calls and streams."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
