"""Send messages on an output for a client of the control API."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from dorad.control.errors import ControlError
from dorad.daemon.subscription.observer import ObserverProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.broker.broker import Broker
    from dorad.dataflow.model import NodeOutput
    from dorad.launch.helper import HelperHost

    Targets = tuple[tuple[str, str], ...]

IDLE_S = 5.0
"""Seconds that the process waits for further messages of the same topic."""

_log = logging.getLogger(__name__)


class Publisher:
    """Sends on one output at a time, through one process that it keeps for `IDLE_S`."""

    def __init__(self, broker: Broker, helpers: HelperHost, new_id: Callable[[], str]) -> None:
        """`new_id` returns the id for one more observer."""
        self._broker = broker
        self._helpers = helpers
        self._new_id = new_id
        self._process: ObserverProcess | None = None
        self._route: tuple[NodeOutput, Targets] | None = None
        """The output that `_process` sends, and the inputs that receive it."""
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def send(
        self, topic: NodeOutput, targets: Targets, data: list[Any], metadata: dict[str, Any]
    ) -> None:
        """Send each entry of `data` to the inputs `targets`.

        Raises:
            ControlError: `refused`, and nothing is sent, if a value is not Arrow data.
        """
        async with self._lock:
            process = await self._process_for(topic, targets)
            answer = None
            refused = False
            try:
                await process.send({"data": data, "metadata": metadata})
                answer = await process.receive()
            except ControlError as error:
                refused = error.code == "refused"
                raise
            finally:
                if answer is None and not refused:
                    await self._end_process()
            if answer is None:
                raise ControlError("not-found", "the dataflow has ended")
            self._end_when_idle()

    async def close(self) -> None:
        """End the process, if there is one."""
        async with self._lock:
            await self._end_process()

    async def _process_for(self, topic: NodeOutput, targets: Targets) -> ObserverProcess:
        """Return a process that sends `topic` to `targets`, the last one if it fits."""
        if self._process is not None and self._route == (topic, targets):
            return self._process
        await self._end_process()
        process = ObserverProcess(self._broker, self._helpers, self._new_id())
        self._process, self._route = process, (topic, targets)
        _log.debug("observer %s publishes %s to %s", process.id, topic, targets)
        try:
            await process.start("publish", outputs={topic.output: targets})
        except BaseException:
            await self._end_process()
            raise
        return process

    def _end_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()

        def end() -> None:
            self._closing = loop.create_task(self.close())

        self._idle = loop.call_later(IDLE_S, end)

    async def _end_process(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self._process, self._route = self._process, None, None
        if process is not None:
            await process.end()
