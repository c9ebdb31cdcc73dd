"""Screen Fleet: open alerts, then all robots, the worst first."""

import time
from collections.abc import Iterable, Sequence

from textual.containers import Horizontal
from textual.widget import Widget

from dorad.control.filters import parse
from dorad.control.messages import ROBOT_HISTORY, Alert, RobotCurves
from dorafleet.console.link.curves import RobotCurveReader
from dorafleet.console.link.server import Server
from dorafleet.console.model.alerts import by_need, where
from dorafleet.console.model.commands import NODE_FAILED
from dorafleet.console.model.order import FLEET_ORDERS
from dorafleet.console.model.targets import Target, dataflows_of, filter_of_alert
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import alertrows, curves, robotlines, tables, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Row
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas

QUIET_STATES = ("ok", "busy", "update")
"""States of robots that need no operator."""


class FleetScreen(ConsoleScreen):
    """All robots."""

    NAME = "fleet"
    ORDERS = tuple(FLEET_ORDERS)
    FILTER_KEYS = tables.FLEET_KEYS
    AUTO_FOCUS = "#robots"
    MARKS = True

    def __init__(self, filter_text: str = "") -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-wide")]
        self._start_filter = filter_text
        self._alerts: dict[str, Alert] = {}
        self._sorted: tuple[object, list[str]] = (None, [])
        self._varied: frozenset[str] = frozenset()
        self._curves = RobotCurveReader(lambda work: self.console.in_background(work), self.bring)

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen with a filter."""
        text = " ".join(words)
        try:
            parse(text)
        except ValueError as error:
            return str(error)
        return cls(text)

    def body(self) -> Iterable[Widget]:
        """Return the alerts, the robots, the inspector, and ten minutes of the chosen robot."""
        yield Grid(alertrows.COLUMNS, ascii_only=self.ascii_only, id="needs")
        with Horizontal(id="split"):
            columns = (*tables.FLEET, *tables.FLEET_CURVES)
            yield Grid(columns, ascii_only=self.ascii_only, id="robots")
            yield Canvas(id="inspector")
        yield Canvas(id="curves", classes="auto")

    def on_screen_resume(self) -> None:
        """Apply the filter that the screen was opened with."""
        if self._start_filter:
            self.console.keep_filter((self.NAME, self.subject), parse(self._start_filter))
            self._start_filter = ""
        super().on_screen_resume()

    def filter_keys(self) -> tuple[str, ...]:
        """Return the columns, and the labels that robots have."""
        return (*self.FILTER_KEYS, *sorted(name.lower() for name in self.server.fleet.labels))

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of robots shown."""
        total, shown = len(self.server.fleet.rows), len(self.query_one("#robots", Grid).ids)
        old = "fleet.watch" in self.server.missing
        note = "this server is too old to list robots" if old else ""
        return Crumbs("Fleet", amount=f"{shown} of {total}", note=note)

    def paint(self, now: float) -> None:
        """Show alerts and robots."""
        stale = self.stale
        self._paint_alerts(now, stale=stale)
        fleet = self.server.fleet
        key = (fleet.version, self.filter.text, self.order, int(now) if self.filter else 0)
        if key != self._sorted[0]:
            self._sorted = (key, self._arranged(now))
            self._varied = tables.varied(row.release for row in fleet.rows.values())
        grid = self.query_one("#robots", Grid)
        grid.widen(robot=words.longest(fleet.rows))
        released = any(row.release for row in fleet.rows.values())
        no_curves = ROBOT_HISTORY.name in self.server.missing
        grid.leave_out(*(() if released else ("release",)), *(tables.CURVES if no_curves else ()))
        grid.show(
            self._sorted[1],
            lambda id_: tables.fleet_row(
                fleet.rows[id_],
                now,
                stale=stale,
                varied=self._varied,
                curves=self._curves_of(id_),
                ascii_only=self.ascii_only,
            ),
            dim=stale,
            empty=self.empty_text("robot", known=fleet.version > 0),
        )
        row = fleet.rows.get(grid.cursor or "")
        self._paint_curves(grid)
        if self.has_class("-wide"):
            lines = [] if row is None else robotlines.inspector_lines(row, now, stale=stale)
            self.query_one("#inspector", Canvas).show(lines)

    def _paint_curves(self, grid: Grid) -> None:
        """Show the last ten minutes of the robot under the cursor; read those that are shown."""
        id_ = grid.cursor or ""
        wanted = {id_, *(grid.on_screen if grid.shows(*tables.CURVES) else ())}
        if not self.stale:
            self._curves.want(self.server, wanted & self.server.fleet.rows.keys())
        own = self._curves_of(id_)
        figures = [] if own is None else curves.of_robot(own)
        line = curves.line(id_, figures, self.size.width, ascii_only=self.ascii_only)
        self.query_one("#curves", Canvas).show([line] if line else [])

    def _curves_of(self, robot: str) -> RobotCurves | None:
        """Return the last ten minutes of a robot, unless they are over or unknown."""
        row = self.server.fleet.rows.get(robot)
        known = row is not None and row.known and not self.stale
        return self._curves.of(robot) if known else None

    def _arranged(self, now: float) -> list[str]:
        rows = [
            row
            for row in self.server.fleet.rows.values()
            if not self.filter or self.filter.matches(tables.fleet_cells(row, now))
        ]
        rows.sort(key=FLEET_ORDERS[self.order])
        return [row.robot for row in rows]

    def _paint_alerts(self, now: float, *, stale: bool) -> None:
        alerts = by_need(self.server.alerts)
        self._alerts = {each.id: each for each in alerts}
        well = all(row.state in QUIET_STATES for row in self.server.fleet.rows.values())
        quiet = "not known now" if stale else "all is well" if well else "no alert"
        if "alerts.watch" in self.server.missing:
            quiet = "this server is too old to judge alerts"
        elif "alerts.watch" not in self.server.answered:
            quiet = "not known yet"
        head = alertrows.heading(
            alerts,
            self.size.width,
            self.glyphs(),
            quiet=quiet,
            undelivered=alertrows.undelivered(self.server.receivers, time.time()),
        )
        needs = self.query_one("#needs", Grid)
        needs.widen(where=words.longest(map(where, alerts)))
        needs.show(list(self._alerts), self._alert_row, heading=head, dim=stale)

    def _alert_row(self, id_: str) -> Row:
        return alertrows.row(self._alerts[id_], time.time())

    @property
    def _on_alerts(self) -> bool:
        return self.query_one("#needs", Grid).has_focus

    def target(self) -> Target:
        """Return the alert or the robot under the cursor."""
        if self._on_alerts:
            alert = self._alerts.get(self.query_one("#needs", Grid).cursor or "")
            return Target() if alert is None else alert_target(alert, self.server)
        return self._robot_target(self.query_one("#robots", Grid).cursor)

    def _robot_target(self, id_: str | None) -> Target:
        row = self.server.fleet.rows.get(id_ or "")
        if row is None:
            return Target()
        names = dataflows_of(row)
        # Of several, only what is wrong says which one is meant.
        dataflow, node = names[0] if len(names) == 1 else "", ""
        if row.findings and row.findings[0].dataflow:
            dataflow, node = row.findings[0].dataflow, row.findings[0].node or ""
        title = f"{row.robot}: {dataflow}{'/' + node if node else ''}" if dataflow else row.robot
        named = self.server.named(row.robot, dataflow)
        target = Target(
            dataflow=named,
            node=node,
            robot=row.robot,
            title=title,
            choices=names,
            ended=bool(node) and row.findings[0].cause == NODE_FAILED,
        )
        return with_alert(target, self.server.alerts)

    def targets(self) -> list[Target]:
        """Return the marked rows, or the one under the cursor."""
        if self._on_alerts:
            chosen = self.query_one("#needs", Grid).chosen
            alerts = [self._alerts[id_] for id_ in chosen if id_ in self._alerts]
            return [alert_target(alert, self.server) for alert in alerts]
        chosen = self.query_one("#robots", Grid).chosen
        targets = [self._robot_target(id_) for id_ in chosen]
        return [each for each in targets if each.dataflow or each.choices or each.alert]

    def argv(self) -> Sequence[str]:
        """Return the command that prints these rows."""
        argv = ["dorafleet", "robots", "--order", self.order]
        return [*argv, "--filter", self.filter.text] if self.filter else argv

    def can_open(self) -> bool:
        """Return True if there is a row."""
        return any(self.target())

    def open_chosen(self) -> None:
        """Open the robot, or the robots of an alert."""
        target = self.target()
        alert = self._alerts.get(target.alert)
        if alert is not None and alert.count > 1:
            self.set_filter(parse(filter_of_alert(alert)))
            self.take_focus()
        elif target.robot:
            self.console.open_about("robot", [target.robot])


def _acts(alert: Alert) -> frozenset[str]:
    # One that another has acknowledged can be taken over from him.
    return frozenset({"acknowledge", *(["unacknowledge"] if alert.acked_by else [])})


def with_alert(target: Target, alerts: Iterable[Alert]) -> Target:
    """Return what is on a robot together with the alert of the robot, if it has exactly one."""
    own = [each for each in alerts if each.robots == [target.robot]]
    if len(own) != 1:
        return target
    return target._replace(alert=own[0].id, about=_title(own[0]), acts=_acts(own[0]))


def alert_target(alert: Alert, server: Server) -> Target:
    """Return an alert as what actions are done to."""
    robot = alert.robots[0] if alert.count == 1 and alert.robots else ""
    single = alert.count == 1
    return Target(
        dataflow=server.named(robot, alert.dataflow or ""),
        node=(alert.node or "") if single else "",
        robot=robot,
        alert=alert.id,
        acts=_acts(alert),
        ended=single and alert.cause == NODE_FAILED,
        title=_title(alert),
    )


def _title(alert: Alert) -> str:
    return f"{where(alert)}: {alert.text}"
