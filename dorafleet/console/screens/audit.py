"""Screen Audit: who has changed what, the newest first."""

from __future__ import annotations

import logging
import textwrap
import time
from collections import deque
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import auditrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.coordinator.audit import Head
from dorafleet.coordinator.messages import AuditPage, AuditRead

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorafleet.console.view.rows import Span
    from dorafleet.coordinator.messages import AuditRecord

METHOD = "audit.read"
EVERY_S = 2.0
"""Seconds between two questions for new records."""
MAX_RECORDS = 500
"""Records that are kept; `dorafleet audit` has all."""
MAX_LINES = 6
"""Lines for the change under the cursor."""

_log = logging.getLogger(__name__)


class AuditScreen(ConsoleScreen):
    """Changes by all operators, programs and rollouts."""

    NAME = "audit"
    FILTER_KEYS = auditrows.KEYS
    ROWS_OF = METHOD
    AUTO_FOCUS = "Grid"

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[AuditRecord] = deque(maxlen=MAX_RECORDS)
        self._shown: dict[str, AuditRecord] = {}
        self._error = ""
        """Why there are no records; empty while there are."""
        self._asked_at: float | None = None
        """On the monotonic clock."""
        self._asks = False

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        return "`audit` takes no words; / filters it" if words else cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return AuditScreen()

    def body(self) -> Iterable[Widget]:
        """Return the table, and the change under the cursor in full."""
        yield Grid(auditrows.COLUMNS, ascii_only=self.ascii_only)
        yield Canvas(id="facts", classes="auto")

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of changes."""
        old = len(self._records) == MAX_RECORDS
        note = "y copies the command that prints older ones" if old else ""
        amount = f"{len(self._shown)} of {words.counted(len(self._records), 'change')}"
        return Crumbs("Audit", amount=amount, note=note)

    def paint(self, now: float) -> None:
        """Show the changes, and ask for new ones."""
        self._ask()
        self._shown = {
            str(each.sequence): each
            for each in reversed(self._records)
            if not self.filter or self.filter.matches(auditrows.cells(each, now))
        }
        grid = self.query_one(Grid)
        grid.widen(who=words.longest(auditrows.who(each.record) for each in self._shown.values()))
        known = METHOD in self.server.answered
        grid.show(
            list(self._shown),
            lambda id_: auditrows.row(self._shown[id_]),
            dim=self.stale,
            empty=self._error or self.empty_text("change", known=known),
        )
        self.query_one("#facts", Canvas).show(self._facts(grid.cursor))

    def _facts(self, id_: str | None) -> list[list[Span]]:
        found = self._shown.get(id_ or "")
        if found is None:
            return []
        text = words.clean(auditrows.change(found.record))
        lines = textwrap.wrap(text, max(self.size.width - 2, 20))[:MAX_LINES]
        client = words.clean(str(found.record.get("client", "-")))
        return [
            [],
            [(f" {found.sequence}", "title"), (f"  with {client}", "dim")],
            *([(f" {line}", "")] for line in lines),
        ]

    def _ask(self) -> None:
        now = time.monotonic()
        due = self._asked_at is None or now >= self._asked_at + EVERY_S
        if due and not self._asks and not self.stale and not self.feeds.paused:
            self._asked_at, self._asks = now, True
            self.console.in_background(self._read())

    async def _read(self) -> None:
        try:
            after = self._records[-1].sequence if self._records else await self._first()
            page, last = await self._page(after, MAX_RECORDS)
        except ControlError as error:
            _log.debug("no audit: %s", error)
            if error.code in ("unknown-method", "unsupported"):
                self._error = "this server keeps no audit: a coordinator does"
                self.server.missing.add(METHOD)
            elif error.code != "unavailable":  # the first line says that
                self._error = error.message
        else:
            self._error = ""
            if last < after:
                self._records.clear()  # a backup was restored: the next answer has what it has
            self._records += page.records
            self.server.answered.add(METHOD)
        finally:
            self._asks = False
            self.bring()

    async def _first(self) -> int:
        """Return the number before the first record to read."""
        _, last = await self._page(0, 1)
        return max(0, last - MAX_RECORDS)

    async def _page(self, after: int, limit: int) -> tuple[AuditPage, int]:
        """Return records, and the number of the last one that there is.

        Raises:
            ControlError: there is no answer, or it has no valid head.
        """
        page = await self.server.call(METHOD, AuditRead(after=after, limit=limit), AuditPage)
        try:
            return page, Head.parse(page.head).sequence
        except ValueError as error:
            raise ControlError("version", str(error)) from None

    def argv(self) -> Sequence[str]:
        """Return the command that prints the changes."""
        return ("dorafleet", "audit")
