"""Screen Audit: who has changed what, the newest first."""

import textwrap
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorafleet.console.link.streams import Feed, polled
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import auditrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Span
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.coordinator.audit import Head
from dorafleet.coordinator.messages import AUDIT_READ, AuditPage, AuditRead, AuditRecord

EVERY_S = 2.0
"""Seconds between two questions for new records."""
MAX_RECORDS = 500
"""Records that are kept; `dorafleet audit` has all."""
MAX_LINES = 6
"""Lines for the change under the cursor."""


class AuditScreen(ConsoleScreen):
    """Changes by all operators, programs and rollouts."""

    NAME = "audit"
    FILTER_KEYS = auditrows.KEYS
    ORDERS = ("people", "all")
    """Without and with what rollouts do by themselves: their screen has that, too."""
    AUTO_FOCUS = "Grid"
    ABOUT_WORDS = "; / filters it"

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[AuditRecord] = deque(maxlen=MAX_RECORDS)
        self._shown: dict[str, AuditRecord] = {}
        self._known = False
        """Whether the server has answered."""

    def body(self) -> Iterable[Widget]:
        """Return the table, and the change under the cursor in full."""
        yield Grid(auditrows.COLUMNS, ascii_only=self.ascii_only)
        yield Canvas(id="facts", classes="auto")

    def streams(self) -> list[Feed[Any]]:
        """Ask for new records again and again."""
        return [Feed(self.server, lambda c: polled(lambda: self._read(c), EVERY_S), self._take)]

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of changes."""
        old = len(self._records) == MAX_RECORDS
        note = "y copies the command that prints older ones" if old else ""
        amount = f"{len(self._shown)} of {words.counted(len(self._records), 'change')}"
        return Crumbs("Audit", amount=amount, note=note)

    def paint(self, now: float) -> None:
        """Show the changes, the newest first."""
        self._shown = {
            str(each.sequence): each
            for each in reversed(self._records)
            if (self.order == "all" or auditrows.is_by_person(each))
            and (not self.filter or self.filter.matches(auditrows.cells(each, now)))
        }
        grid = self.query_one(Grid)
        grid.widen(who=words.longest(auditrows.who(each.record) for each in self._shown.values()))
        grid.show(
            list(self._shown),
            lambda id_: auditrows.row(self._shown[id_]),
            dim=self.outdated,
            empty=self._empty(),
        )
        self.query_one("#facts", Canvas).show(self._facts(grid.cursor))

    def _facts(self, id_: str | None) -> list[list[Span]]:
        record = self._shown.get(id_ or "")
        if record is None:
            return []
        text = words.clean(auditrows.change(record.record))
        lines = textwrap.wrap(text, max(self.size.width - 2, 20))[:MAX_LINES]
        client = words.clean(str(record.record.get("client", "-")))
        return [
            [],
            [(f" {record.sequence}", "title"), (f"  with {client}", "dim")],
            *([(f" {line}", "")] for line in lines),
        ]

    def _empty(self) -> str:
        if self.feeds.problem in ("unknown-method", "unsupported"):
            return "this server keeps no audit: a coordinator does"
        return self.empty_text("change", known=self._known)

    async def _read(self, client: AsyncClient) -> tuple[list[AuditRecord], bool]:
        """Return the records that are new, and whether those that are shown are no longer there."""
        after = self._records[-1].sequence if self._records else await _first(client)
        page, last = await _page(client, after, MAX_RECORDS)
        return page.records, last < after

    def _take(self, page: tuple[list[AuditRecord], bool]) -> None:
        new, restored = page
        self._known = True
        if restored:
            self._records.clear()  # from a backup: the next answer has what it has
        self._records += new
        self.bring()

    def argv(self) -> Sequence[str]:
        """Return the command that prints the changes."""
        return ("dorafleet", "audit")


async def _first(client: AsyncClient) -> int:
    """Return the number before the first record to read."""
    _, last = await _page(client, 0, 1)
    return max(0, last - MAX_RECORDS)


async def _page(client: AsyncClient, after: int, limit: int) -> tuple[AuditPage, int]:
    """Return records, and the number of the last one that there is.

    Raises:
        ControlError: there is no answer, or it has no valid head.
    """
    page = await client.call(AUDIT_READ, AuditRead(after=after, limit=limit))
    try:
        return page, Head.parse(page.head).sequence
    except ValueError as error:
        raise ControlError("version", str(error)) from None
