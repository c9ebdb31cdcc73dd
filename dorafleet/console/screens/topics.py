"""Screen Topics: the outputs of a dataflow, with rates."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from dorad.control.errors import ControlError
from dorad.control.messages import TOPIC_LIST, Preview, Ref
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Cell, Column, Row
from dorafleet.console.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dorad.control.asyncclient import AsyncClient, AsyncStream
    from dorad.control.filters import Value
    from dorad.control.messages import TopicHeader, TopicInfo, TopicRate, TopicRates

_log = logging.getLogger(__name__)

COLUMNS = (
    Column("topic", "TOPIC", 20, grow=3),
    Column("rate", "RATE/s", 8, right=True),
    Column("bandwidth", "B/s", 8, right=True),
    Column("jitter", "STD", 8, right=True, drop=2),
    Column("type", "TYPE", 14, grow=1, drop=3),
    Column("to", "SUBSCRIBERS", 20, grow=3, drop=1),
)


TYPE_HZ = 1.0
TYPE_S = 10.0
"""Seconds for which types are looked for: an output may send seldom or never."""
SMALL = Preview(width=8, height=8)
MAX_TYPES = 1000
MAX_TYPE = 400
"""Characters of a type, which may have any number of fields."""


class TopicsScreen(ConsoleScreen):
    """The outputs of a dataflow."""

    NAME = "topics"
    ORDERS = ("file", "rate", "bandwidth")
    FILTER_KEYS = ("topic", "rate", "bandwidth", "type", "to")
    COLUMNS = COLUMNS
    AUTO_FOCUS = "Grid"
    OPENS = True

    def __init__(self, dataflow: str) -> None:
        super().__init__()
        self.dataflow = dataflow
        self._topics: dict[str, TopicInfo] = {}
        self._rates: dict[str, TopicRate] = {}
        self._types: dict[str, str] = {}
        """The types of messages that have been seen, of outputs without a declared one."""
        self._types_asked = 0.0
        self._listing = False
        self._listed = False

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a dataflow."""
        return cls(words[0]) if len(words) == 1 else "name a dataflow: `topics pick`"

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return TopicsScreen(self.dataflow)

    @property
    def subject(self) -> tuple[str | None, ...]:
        """The dataflow."""
        return (self.dataflow,)

    def streams(self) -> list[Feed[Any]]:
        """Measure all outputs, and receive messages until the types are known."""
        return [
            Feed(self.server, lambda c: c.watch_topics(dataflow=self.dataflow), self._take),
            Feed(self.server, self._messages, self._take_type, self._types_known),
        ]

    def _messages(self, client: AsyncClient) -> AsyncStream[tuple[TopicHeader, pa.Array | None]]:
        self._types_asked = time.monotonic()
        return client.echo(dataflow=self.dataflow, queue_size=1, max_rate_hz=TYPE_HZ, preview=SMALL)

    def _take_type(self, event: tuple[TopicHeader, pa.Array | None]) -> None:
        header, array = event
        if len(self._types) < MAX_TYPES:
            self._types[header.topic] = "null" if array is None else str(array.type)[:MAX_TYPE]
        self.bring()

    def _types_known(self) -> bool:
        untyped = {name for name, info in self._topics.items() if info.type is None}
        known = self._listed and untyped <= self._types.keys()
        late = self._types_asked and time.monotonic() > self._types_asked + TYPE_S
        return known or bool(late)

    async def _list(self) -> None:
        try:
            listed = await self.server.call(TOPIC_LIST, Ref(dataflow=self.dataflow))
        except ControlError as error:
            _log.debug("no list of the outputs of %s: %s", self.dataflow, error)
        else:
            self._listed = True
            self._topics = {f"{each.node}/{each.output}": each for each in listed.topics}
        finally:
            self._listing = False
        self.bring()

    def _take(self, rates: TopicRates) -> None:
        self._rates = {each.topic: each for each in rates.rates}
        if not self._listing and (not self._listed or self._rates.keys() - self._topics.keys()):
            self._listing = True
            self.console.in_background(self._list())
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of topics."""
        shown = len(self.query_one(Grid).ids)
        path = f"{self.dataflow} > Topics"
        return Crumbs(path, amount=f"{shown} of {len(self._topics)}")

    def paint(self, now: float) -> None:
        """Show the outputs."""
        del now
        topics = self._topics  # a new list may lack rows that are still shown
        ids = [id_ for id_, info in topics.items() if self.filter.matches(self._cells(id_, info))]
        if self.order != "file":
            ids.sort(key=self._amount, reverse=True)
        empty = self.empty_text("output", known=self._listed)
        self.query_one(Grid).show(
            ids, lambda id_: self._row(id_, topics[id_]), dim=self.outdated, empty=empty
        )

    def _cells(self, id_: str, info: TopicInfo) -> dict[str, Value]:
        rate = self._rates.get(id_)
        return {
            "topic": id_,
            "rate": None if rate is None else rate.hz,
            "bandwidth": None if rate is None else rate.bandwidth,
            "type": self._type(id_, info),
            "to": tuple(f"{each.node}/{each.input}" for each in info.subscribers),
        }

    def _type(self, id_: str, info: TopicInfo) -> str:
        """Return the declared type, else that of a message; empty if none has come."""
        return info.type or self._types.get(id_, "")

    def _amount(self, id_: str) -> float:
        """Return the rate or bandwidth that topics are ordered by."""
        rate = self._rates.get(id_)
        amount = None if rate is None else rate.hz if self.order == "rate" else rate.bandwidth
        return amount or 0.0

    def _row(self, id_: str, info: TopicInfo) -> Row:
        rate = self._rates.get(id_)
        to = ", ".join(f"{each.node}/{each.input}" for each in info.subscribers)
        std = None if rate is None or rate.std_ms is None else rate.std_ms / 1e3
        return Row(
            id_,
            (
                Cell(id_, "name"),
                Cell(words.rate(None if rate is None else rate.hz)),
                Cell(words.count(None if rate is None else rate.bandwidth)),
                Cell(words.milliseconds(std)),
                Cell(self._type(id_, info) or "-", "dim"),
                Cell(to or "none", "" if to else "dim"),
            ),
        )

    def target(self) -> Target:
        """Return the node of the output under the cursor."""
        topic = self.query_one(Grid).cursor or ""
        node = topic.partition("/")[0]
        return Target(self.dataflow, node, title=f"{self.dataflow}/{node}") if node else Target()

    def argv(self) -> Sequence[str]:
        """Return the command that measures the same."""
        return ("dora", "topic", "hz", "-d", self.dataflow)

    def open_chosen(self) -> None:
        """Open the output."""
        if topic := self.query_one(Grid).cursor:
            self.console.open_about("topic", [self.dataflow, topic])
