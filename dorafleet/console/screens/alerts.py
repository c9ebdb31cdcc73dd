"""Screen Alerts: all alerts, with their details, and the last ones that are over."""

import logging
import textwrap
from collections.abc import Iterable, Sequence

from textual.widget import Widget

from dorad.control.errors import ControlError
from dorad.control.messages import ALERTS_PAST, Alert, PastAlert, PastAlertsRead
from dorad.terminal import local_time
from dorafleet.console.model.alerts import by_need, new_count, where
from dorafleet.console.model.targets import Target, filter_of_alert
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.fleet import alert_target
from dorafleet.console.view import alertrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Span
from dorafleet.console.view.words import clean
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas

MAX_NAMED = 20
"""Robots of an alert that are named."""
MAX_OVER = 8
"""Alerts that are over and are shown; `dorafleet alerts --past` has more."""

_log = logging.getLogger(__name__)


class AlertsScreen(ConsoleScreen):
    """All alerts."""

    NAME = "alerts"
    FILTER_KEYS = alertrows.KEYS
    ROWS_OF = "alerts.watch"
    AUTO_FOCUS = "Grid"
    OPENS = MARKS = True

    def __init__(self) -> None:
        super().__init__()
        self._alerts: dict[str, Alert] = {}
        self._past: list[PastAlert] = []
        self._past_beside: frozenset[str] | None = None
        """The open alerts when those that are over were read."""

    def body(self) -> Iterable[Widget]:
        """Return the table, and what is known of the chosen one."""
        yield Grid(alertrows.COLUMNS, ascii_only=self.ascii_only)
        yield Canvas(id="facts", classes="auto")
        yield Canvas(id="past", classes="auto")

    def on_screen_resume(self) -> None:
        """Read those that are over again: some may have come and gone while this was hidden."""
        self._past_beside = None
        super().on_screen_resume()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of alerts."""
        new = new_count(self.server.alerts)
        return Crumbs(
            "Alerts", amount=f"{len(self._alerts)} of {len(self.server.alerts)}, {new} new"
        )

    def paint(self, now: float) -> None:
        """Show the alerts."""
        alerts = [
            each
            for each in by_need(self.server.alerts)
            if not self.filter or self.filter.matches(alertrows.cells(each, now))
        ]
        self._alerts = {each.id: each for each in alerts}
        grid = self.query_one(Grid)
        stale = self.stale
        grid.widen(where=words.longest(map(where, alerts)))
        grid.show(
            list(self._alerts),
            lambda id_: alertrows.row(self._alerts[id_], now),
            dim=stale,
            empty=self._quiet(stale=stale),
        )
        self.query_one("#facts", Canvas).show(self._facts(grid.cursor))
        self.query_one("#past", Canvas).show(alertrows.past_lines(self._past))
        beside = frozenset(each.id for each in self.server.alerts)
        if beside != self._past_beside and not stale:
            self._past_beside = beside
            self.console.in_background(self._read_past())

    async def _read_past(self) -> None:
        try:
            past = await self.server.call(ALERTS_PAST, PastAlertsRead(limit=MAX_OVER))
        except ControlError as error:
            _log.debug("no alerts that are over: %s", error)
        else:
            self._past = past.alerts
            self.bring()

    def _quiet(self, *, stale: bool) -> str:
        if "alerts.watch" in self.server.missing:
            return "this server is too old to judge alerts"
        if stale and self.server.link.fresh_at:
            return "no alert was open; not known now"
        return self.empty_text("alert", known=self.ROWS_OF in self.server.answered)

    def _facts(self, id_: str | None) -> list[list[Span]]:
        alert = self._alerts.get(id_ or "")
        if alert is None:
            return []
        since = local_time(alert.since, "%Y-%m-%d %H:%M:%S")
        named = ", ".join(map(clean, alert.robots[:MAX_NAMED]))
        if alert.count > MAX_NAMED:
            named += f" and {alert.count - MAX_NAMED} more"
        columns = max(self.size.width - 10, 20)
        first, *others = textwrap.wrap(named, columns) or [""]
        next_ = textwrap.wrap(clean(alert.hint), columns)
        return [
            [],
            *([(f" {line}", "title")] for line in textwrap.wrap(clean(alert.text), columns)),
            [(" since ", "dim"), (since, ""), ("   cause ", "dim"), (clean(alert.cause), "")],
            [(" robots ", "dim"), (first, "")],
            *([("        ", ""), (line, "")] for line in others),
            *(
                [(" next " if at == 0 else "      ", "dim"), (line, "")]
                for at, line in enumerate(next_)
            ),
        ]

    def target(self) -> Target:
        """Return the alert under the cursor."""
        alert = self._alerts.get(self.query_one(Grid).cursor or "")
        return Target() if alert is None else alert_target(alert, self.server)

    def targets(self) -> list[Target]:
        """Return the chosen alerts."""
        chosen = self.query_one(Grid).chosen
        alerts = [self._alerts[id_] for id_ in chosen if id_ in self._alerts]
        return [alert_target(alert, self.server) for alert in alerts]

    def argv(self) -> Sequence[str]:
        """Return the command that prints these alerts."""
        argv = ["dorafleet", "alerts"]
        return [*argv, "--filter", self.filter.text] if self.filter else argv

    def open_chosen(self) -> None:
        """Open the robot, or the list of robots."""
        alert = self._alerts.get(self.query_one(Grid).cursor or "")
        if alert is None:
            return
        if alert.count == 1 and alert.robots:
            self.console.open_about("robot", alert.robots)
        else:
            self.console.open_about("fleet", [filter_of_alert(alert)])
