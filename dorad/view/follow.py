"""Follow a dataflow by its name or file: its graph, its figures, its end, its next run."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError, NoDaemonError
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.html import live_graph
from dorad.dataflow.load import from_descriptor
from dorad.terminal import visible
from dorad.view.figures import chart, curves, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.control.messages import DataflowDetail
    from dorad.control.target import UnixSocket

POLL_S = 1.0
"""Between two measurements, which servers make once a second."""
INFO_S = 2.0
"""Between two looks at the dataflow itself, which may get or lose nodes."""
TRACES = 4
"""The slowest traces that are shown."""

_log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """The dataflow to follow: by its name or UUID, or by its file."""

    name: str | None = None
    path: Path | None = None

    def __str__(self) -> str:
        return visible(self.name or str(self.path))


class Place(NamedTuple):
    """Where dataflows run."""

    target: UnixSocket | None = None
    """None is the daemon, or the coordinator that is used; else the socket of a `dora run`."""


class Audience(Protocol):
    """Who is shown what is followed."""

    async def wait(self) -> None:
        """Return when somebody looks."""

    def show(self, kind: str, message: dict[str, Any]) -> None:
        """Show the latest message of a kind: `graph`, `figures` or `state`."""


class _OverError(Exception):
    """The dataflow has ended; the text says how."""


class Follower:
    """Shows one dataflow to an audience. Asks servers only while somebody looks."""

    def __init__(
        self, places: Callable[[], Sequence[Place]], wanted: Wanted, audience: Audience
    ) -> None:
        """`places` returns where it may run at present."""
        self._places = places
        self._wanted = wanted
        self._audience = audience
        self._followed: tuple[AsyncClient, str] | None = None
        """The server, and what the dataflow is called there, while it runs."""
        self._at_server = False
        """Whether it was last seen at the daemon or coordinator."""
        self._descriptor: object = None
        self._state = ""

    async def run(self) -> None:
        """Follow it until cancelled."""
        while True:
            await self._audience.wait()
            try:
                place = await self._find()
            except ControlError as error:
                self._show_state("lost", f"{error}")
                place = None
            if place is not None:
                await self._follow(*place)
            await asyncio.sleep(POLL_S)

    async def history(self, node: str) -> dict[str, Any]:
        """Return the curves of a node and its edges. Raises ControlError."""
        client, name = self._running()
        return curves(await client.history(name, node=node))

    async def traces(self, through: Sequence[str]) -> dict[str, Any]:
        """Return the slowest traces that pass nodes and outputs. Raises ControlError."""
        client, name = self._running()
        answer = await client.traces(name, through=through, slow=True, limit=TRACES, spans=True)
        return {
            "type": "traces",
            "traces": [chart(trace) for trace in answer.traces],
            "missing": answer.missing,
        }

    def _running(self) -> tuple[AsyncClient, str]:
        if self._followed is None:
            raise ControlError("unavailable", f"{self._wanted} does not run")
        return self._followed

    async def _find(self) -> tuple[Place, AsyncClient, DataflowDetail] | None:
        """Return the newest running dataflow that is wanted, with a connection to its server.

        Raises:
            ControlError: a server does not answer, and no other one runs it.
        """
        failure: ControlError | None = None
        for place in self._places():
            client = AsyncClient(place.target)
            try:
                await client.open()
            except ControlError as error:
                # Of no importance: a `dora run` that has just ended, a daemon that was never there.
                absent = isinstance(error, NoDaemonError) and not self._at_server
                if place.target is None and not absent:
                    failure = error
                continue
            try:
                detail = await self._detail(client)
            except ControlError as error:
                failure, detail = error, None
            if detail is not None:
                return place, client, detail
            await client.close()
        if failure is not None:
            raise failure
        if not self._state or self._state == "lost":
            self._show_state("waiting", f"{self._wanted} does not run; waiting for its start")
        return None

    async def _detail(self, client: AsyncClient) -> DataflowDetail | None:
        if self._wanted.path is None:
            try:
                detail = await client.info(self._wanted.name)
            except ControlError as error:
                if error.code != "not-found":
                    raise
                return None
            return detail if detail.info.active else None
        active = [info for info in await client.list() if info.active]
        for info in sorted(active, key=lambda each: -each.started_at):
            detail = await client.info(info.uuid)
            if Path(detail.path) == self._wanted.path:
                return detail
        return None

    async def _follow(self, place: Place, client: AsyncClient, detail: DataflowDetail) -> None:
        uuid = detail.info.uuid
        _log.debug("following dataflow %s at %s", uuid, place)
        # A coordinator knows the run of a release on one robot by its name only.
        self._followed = client, self._wanted.name or uuid
        self._at_server = place.target is None
        self._descriptor = None
        try:
            await self._poll(client, uuid)
        except _OverError as over:
            self._show_state("ended", f"{self._wanted} {over}")
        except ControlError as error:
            if place.target is not None and not place.target.path.exists():
                self._show_state("ended", f"{self._wanted} has ended with its `dora run`")
            else:
                self._show_state("lost", f"{error}")
        finally:
            self._followed = None
            await client.close()

    async def _poll(self, client: AsyncClient, uuid: str) -> None:
        """Show figures until the dataflow ends.

        Raises:
            ControlError: the server does not answer.
            _OverError: it has ended.
        """
        looked = -INFO_S
        while True:
            await self._audience.wait()
            if time.monotonic() - looked >= INFO_S:
                looked = time.monotonic()
                await self._look(client, uuid)
            shown = figures(await client.top(), uuid)
            self._state = "live"
            self._audience.show("figures", shown)
            await asyncio.sleep(POLL_S)

    async def _look(self, client: AsyncClient, uuid: str) -> None:
        """Show the graph if it has changed. Raises as `_poll` does."""
        try:
            detail = await client.info(self._wanted.name or uuid)
        except ControlError as error:
            if error.code != "not-found":
                raise
            raise _OverError("has ended and was cleaned") from None
        if detail.info.uuid != uuid:
            raise _OverError("has been started again")
        if not detail.info.active:
            raise _OverError("has failed" if detail.info.status == "failed" else "has ended")
        if detail.descriptor == self._descriptor:
            return
        _log.debug("dataflow %s has another descriptor", uuid)
        try:
            drawn = live_graph(from_descriptor(detail.descriptor, path=Path(detail.path)))
        except DataflowError as error:
            # Of a server of another version: its figures can be shown without a graph.
            raise ControlError("refused", f"its descriptor cannot be read: {error}") from error
        self._descriptor = detail.descriptor
        name = detail.info.name or drawn["name"]
        self._audience.show("graph", {"type": "graph", **drawn, "name": name})

    def _show_state(self, state: str, text: str) -> None:
        if state != self._state:
            _log.debug("%s: %s", state, text)
        self._state = state
        self._audience.show("state", {"type": "state", "state": state, "text": text})
