"""A daemon that runs nothing: it answers the control API, and does as the test says."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.server import Call, ControlServer


class FakeDorad:
    """Keeps its runs while its server is closed and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, m.DataflowInfo] = {}
        self.links: dict[str, dict[str, m.LinkPeer]] = {}
        self.held: set[str] = set()
        self.started: list[m.Start] = []
        self.updates: list[m.Update] = []
        self.opened: list[str] = []
        self.stops: list[m.Stop] = []
        self.params: list[m.ParamSet | m.ParamRef] = []
        self.refusal: ControlError | None = None
        """The answer to starts and updates."""
        self.slow_stop = False
        """Whether nodes stop only by force."""
        self.events = Bell()
        self.queue: list[m.Event] = []
        self._server: ControlServer | None = None

    async def start(self) -> None:
        self._server = ControlServer(self.handlers, version="1.2.3")
        await self._server.serve(self.path)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None

    @property
    def handlers(self) -> dict[str, Any]:
        return {
            "dataflow.list": self._list,
            "dataflow.wait": self._wait,
            "dataflow.start": self._start,
            "dataflow.open": self._open,
            "dataflow.update": self._update,
            "dataflow.stop": self._stop,
            "dataflow.info": self._info,
            "param.set": self._set,
            "param.delete": self._set,
            "watch": self._watch,
            "topic.subscribe": self._subscribe,
            "topic.watch": self._rates,
            "fleet.watch": self._row,
            "top": self._top,
        }

    def end(self, uuid: str, status: m.Status) -> None:
        """End a run."""
        self.runs[uuid].status = status
        self.runs[uuid].ended_at = time.time()
        self.held.discard(uuid)
        self._publish(uuid, "dataflow-ended")

    def network_changed(self) -> None:
        self._publish("", "network-changed")

    def _publish(self, uuid: str, what: str) -> None:
        self.queue.append(m.Event(at=time.time(), dataflow=uuid, what=what))
        self.events.ring()

    async def _list(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        return m.DataflowList(dataflows=list(self.runs.values()))

    async def _info(self, _call: Call, params: m.Ref) -> m.DataflowDetail:
        for info in self.runs.values():
            if params.dataflow in (None, info.name, info.uuid):
                return m.DataflowDetail(info=info, descriptor={}, path="/", log_dir="")
        raise ControlError("not-found", "there is no such dataflow")

    async def _set(self, _call: Call, params: m.ParamSet) -> m.Param:
        self.params.append(params)
        return m.Param(key=params.key, value=params.value)

    async def _wait(self, _call: Call, params: m.Wait) -> m.DataflowState:
        if params.dataflow not in self.runs:
            raise ControlError("not-found", "there is no such dataflow")
        return self._state(params.dataflow)

    def _state(self, uuid: str) -> m.DataflowState:
        info = self.runs[uuid]
        return m.DataflowState(
            uuid=uuid,
            name=info.name,
            status=info.status,
            ready=uuid in self.held,
            links=self.links.get(uuid, {}),
        )

    async def _start(self, _call: Call, params: m.Start) -> m.Started:
        if self.refusal is not None:
            raise self.refusal
        assert params.uuid is not None
        known = self.runs.get(params.uuid)
        if known is not None and known.ended_at is None:
            raise ControlError("exists", "this dataflow runs already")
        self.started.append(params)
        held = params.hold is not None
        self.runs[params.uuid] = m.DataflowInfo(
            uuid=params.uuid,
            name=params.name,
            status="starting" if held else "running",
            nodes=1,
            cpu=0,
            memory=0,
            started_at=time.time(),
        )
        if held:
            self.held.add(params.uuid)
        self._publish(params.uuid, "dataflow-starting")
        return m.Started(uuid=params.uuid, name=params.name)

    async def _open(self, _call: Call, params: m.Ref) -> m.Nothing:
        assert params.dataflow is not None
        self.opened.append(params.dataflow)
        self.held.discard(params.dataflow)
        self.runs[params.dataflow].status = "running"
        self._publish(params.dataflow, "dataflow-running")
        return m.Nothing()

    async def _update(self, _call: Call, params: m.Update) -> m.Changed:
        if self.refusal is not None:
            raise self.refusal
        self.updates.append(params)
        return m.Changed(uuid=params.dataflow, changes=[])

    async def _stop(self, _call: Call, params: m.Stop) -> m.DataflowState:
        assert params.dataflow is not None
        self.stops.append(params)
        info = self.runs[params.dataflow]
        info.status = "stopping"
        while self.slow_stop and not params.force:
            await self.events.wait()
        if info.ended_at is None:
            self.end(params.dataflow, "finished")
        return self._state(params.dataflow)

    async def _watch(self, _call: Call, _params: m.Watch) -> AsyncIterator[m.Event]:
        seen = len(self.queue)
        while True:
            while seen < len(self.queue):
                yield self.queue[seen]
                seen += 1
            await self.events.wait()

    async def _subscribe(
        self, call: Call, _params: m.TopicSubscribe
    ) -> AsyncIterator[tuple[m.TopicHeader, bytes]]:
        for number in range(3):
            header = m.TopicHeader(
                stream=call.id, topic="a/out", sequence=number + 1, dropped=0, metadata={}
            )
            yield header, bytes([number]) * 1000

    async def _row(self, _call: Call, _params: m.FleetWatch) -> AsyncIterator[m.FleetRows]:
        yield m.FleetRows(at=time.time(), rows=[], whole=True)

    async def _rates(self, _call: Call, _params: m.TopicWatch) -> AsyncIterator[m.TopicRates]:
        yield m.TopicRates(at=time.time(), rates=[])
        await asyncio.Event().wait()

    async def _top(self, _call: Call, _params: m.Nothing) -> m.Top:
        raise ControlError("busy", "not now", "later", ["a problem"])
