"""Screen Params: the parameters of nodes, of one or of several robots."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import PARAM_LIST, NodeRef, Param
from dorad.natural import natural
from dorad.phrases import first_of
from dorafleet.console.link.streams import Feed, polled
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import paramrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Row
from dorafleet.console.widgets.grid import Grid

EVERY_S = 3.0
AT_ONCE = 8
"""Nodes that are asked at the same time."""
MAX_NODES = 100
MAX_NAMED = 3
"""Nodes that the title names, and those without an answer."""


class Of(NamedTuple):
    """A node with parameters."""

    dataflow: str
    node: str

    def __str__(self) -> str:
        return f"{self.dataflow}/{self.node}"


class ParamsScreen(ConsoleScreen):
    """The parameters of some nodes."""

    NAME = "params"
    FILTER_KEYS = paramrows.KEYS
    COLUMNS = paramrows.COLUMNS
    AUTO_FOCUS = "Grid"
    MARKS = True

    def __init__(self, nodes: Sequence[Of]) -> None:
        super().__init__()
        self.refs = nodes
        self._found: dict[Of, list[Param]] = {}
        self._errors: dict[Of, str] = {}
        self._shown: dict[str, tuple[Of, Param]] = {}
        self._began = False

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about pairs of a dataflow and a node."""
        if not words or len(words) % 2 or not all(words):
            return "name a dataflow and its node: `params pick planner`"
        nodes = list(dict.fromkeys(map(Of, words[::2], words[1::2])))
        if len(nodes) > MAX_NODES:
            return f"at most {MAX_NODES} nodes at a time, not {len(nodes)}"
        return cls(nodes)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return ParamsScreen(self.refs)

    @property
    def subject(self) -> tuple[str | None, ...]:
        """The nodes."""
        return tuple(map(str, self.refs))

    def streams(self) -> list[Feed[Any]]:
        """Ask each node again and again."""
        return [Feed(self.server, lambda c: polled(lambda: self._ask(c), EVERY_S), self._take)]

    async def _ask(self, client: AsyncClient) -> Mapping[Of, list[Param] | ControlError]:
        """Return the parameters of each node, or why they are not known.

        Raises:
            ControlError: none are known.
        """
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(node: Of) -> list[Param] | ControlError:
            ref = NodeRef(node=node.node, dataflow=node.dataflow)
            async with limit:
                try:
                    return (await client.call(PARAM_LIST, ref)).params
                except ControlError as error:
                    return error

        answers = dict(zip(self.refs, await asyncio.gather(*map(one, self.refs)), strict=True))
        errors = [each for each in answers.values() if isinstance(each, ControlError)]
        if len(errors) == len(answers):
            raise errors[0]
        return answers

    def _take(self, answers: Mapping[Of, list[Param] | ControlError]) -> None:
        self._found = {o: each for o, each in answers.items() if not isinstance(each, ControlError)}
        self._errors = {
            o: str(each) for o, each in answers.items() if isinstance(each, ControlError)
        }
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of parameters."""
        named = first_of(map(str, self.refs), MAX_NAMED)
        known = sum(map(len, self._found.values()))
        amount = f"{len(self._shown)} of {known}" if self._found else ""
        errors = (f"{node}: {why}" for node, why in self._errors.items())
        return Crumbs(f"{named} > Params", amount=amount, note=first_of(errors, 1))

    def paint(self, now: float) -> None:
        """Show the parameters, those of the same name below each other."""
        del now
        all_ = {f"{o} {p.key}": (o, p) for o, params in self._found.items() for p in params}
        self._shown = {
            id_: (node, param)
            for id_, (node, param) in sorted(all_.items(), key=lambda each: natural(each[1][1].key))
            if self.filter.matches(paramrows.cells(str(node), param))
        }
        shown = self._shown
        grid = self.query_one(Grid)
        grid.leave_out(*(() if len(self.refs) > 1 else ("node",)))
        grid.widen(
            parameter=words.longest(param.key for _, param in all_.values()),
            node=words.longest(map(str, self.refs)),
        )
        if self._found and not self._began:
            self._began = True
            if len(shown) > 1 and len({param.key for _, param in shown.values()}) == 1:
                grid.marks |= set(shown)  # as their nodes were, from which this was opened
        empty = self.empty_text("parameter", known=bool(self._found))

        def row(id_: str) -> Row:
            node, param = shown[id_]
            return paramrows.row(id_, str(node), param)

        grid.show(list(shown), row, dim=self.outdated, empty=empty)

    def target(self) -> Target:
        """Return the parameter under the cursor."""
        return self._target(self.query_one(Grid).cursor)

    def targets(self) -> list[Target]:
        """Return the marked parameters, or the one under the cursor."""
        return [self._target(id_) for id_ in self.query_one(Grid).chosen if id_ in self._shown]

    def _target(self, id_: str | None) -> Target:
        shown = self._shown.get(id_ or "")
        if shown is None:
            return Target()
        node, param = shown
        return Target(node.dataflow, node.node, title=f"{node} {param.key}", param=param)

    def argv(self) -> Sequence[str]:
        """Return the command that prints those of the node under the cursor."""
        shown = self._shown.get(self.query_one(Grid).cursor or "")
        node = self.refs[0] if shown is None else shown[0]
        return ("dora", "param", "list", node.node, "-d", node.dataflow)
