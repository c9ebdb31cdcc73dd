"""Screen Topic: one output as fields, curves, a table, a scan, a picture, or lines of text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from textual.geometry import Region

from dorad.control.messages import Preview
from dorafleet.console import themes
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.detail import Detail
from dorafleet.console.model.series import Series
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.workingkeys import in_order
from dorafleet.console.view import fields, scan, values, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.picture import picture
from dorafleet.console.view.placeholders import PLACEHOLDER, cells, fitting
from dorafleet.console.view.plot import plot
from dorafleet.console.view.rows import plain
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView, Painted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    from textual.binding import BindingType
    from textual.widget import Widget

    from dorad.control.asyncclient import AsyncClient, AsyncStream
    from dorad.control.messages import TopicHeader, TopicRate, TopicRates
    from dorafleet.console.view.rows import Span

VIEWS = ("auto", "fields", "plot", "table", "scan", "picture", "blocks", "echo")
RATE_HZ = 10.0
MAX_PIXELS = (1280, 720)
"""Width and height of a picture in pixels."""
PIXELS_HZ = (2.0, 5.0)
"""How many of them a second a robot is asked for, at least and at most."""
PIXELS_BYTES = 4_000_000
"""Bytes a second that they may take, at more than the least of them: they are not compressed, and
the line to a robot is its own, too."""
SECONDS = 30.0
"""What the curves show."""
MAX_SERIES = 64
"""Fields whose last values are kept before anybody asks for their curves."""


class TopicScreen(ConsoleScreen):
    """One output."""

    NAME = "topic"
    OPENS = True
    AUTO_FOCUS = "LogView"
    BINDINGS: ClassVar[list[BindingType]] = in_order(("v", "view", "view"))

    def __init__(self, dataflow: str, topic: str, view: str = "auto") -> None:
        super().__init__()
        self.dataflow = dataflow
        self.topic = topic
        self.mode = view
        self._rate: TopicRate | None = None
        self._last: values.Content | None = None
        self._last_at = 0.0
        self._detail = Detail()
        self._asked_sharp = False
        """Whether pictures are subscribed to in pixels, not in half blocks."""
        self._number = 0
        """Number of messages of all subscriptions."""
        self._earlier = 0
        """Those of earlier subscriptions."""
        self._waiting: list[values.TopicMessage | values.Gap] = []
        self._series: dict[str, Series] = {}
        """The last values of fields, by path."""
        self._plotted: list[str] = []
        """The fields whose curves were asked for."""
        self._table = ""
        """The list of structs that is shown; empty for that which the message is."""

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about an output."""
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in VIEWS):
            return f"name an output: `topic pick camera/image [{'|'.join(VIEWS)}]`"
        return cls(*words)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        screen = TopicScreen(self.dataflow, self.topic, self.mode)
        screen._plotted, screen._table = list(self._plotted), self._table
        return screen

    def body(self) -> Iterable[Widget]:
        """Return the figures, then the views, of which one is shown, or fields with curves."""
        yield Canvas(id="facts", classes="auto")
        yield LogView(values.line)
        yield Grid(fields.COLUMNS, ascii_only=self.ascii_only, id="fields")
        yield Canvas(id="content", focusable=True)

    def streams(self) -> list[Feed[Any]]:
        """Measure the output, and receive previews of its messages."""
        return [
            Feed(
                self.server,
                lambda c: c.watch_topics([self.topic], dataflow=self.dataflow),
                self._take_rates,
            ),
            Feed(self.server, self._subscribed, self._take),
        ]

    @property
    def _sharp(self) -> bool:
        """Whether the terminal is to show pixels, not half blocks."""
        options, last = self.console.options, self._last
        return (
            options.pixels
            and options.theme not in themes.USES_TERMINAL_COLOURS
            and self.view == "picture"
            and last is not None
            and last.picture is not None
            and self._detail.sharp(time.monotonic())
        )

    @property
    def _pixels(self) -> tuple[int, int]:
        """The size of pictures: a character is two pixels, one above the other, or has its own."""
        if self._asked_sharp:
            cell = self.console.frames.picture.cell
            across, down = self.size.width * cell[0], self.size.height * cell[1]
            return max(8, min(MAX_PIXELS[0], across)), max(8, min(MAX_PIXELS[1], down))
        return max(8, self.size.width), max(8, 2 * self.size.height)

    @property
    def _max_hz(self) -> float:
        """Messages a second that are subscribed to."""
        if not self._asked_sharp:
            return RATE_HZ
        width, height = self._pixels
        least, most = PIXELS_HZ
        return min(most, max(least, round(PIXELS_BYTES / (3 * width * height), 1)))

    def _subscribed(self, client: AsyncClient) -> AsyncStream[tuple[TopicHeader, pa.Array | None]]:
        self._earlier = self._number
        width, height = self._pixels
        return client.echo(
            [self.topic],
            dataflow=self.dataflow,
            queue_size=1,
            max_rate_hz=self._max_hz,
            preview=Preview(width=width, height=height),
        )

    def _take_rates(self, rates: TopicRates) -> None:
        self._rate = next((each for each in rates.rates if each.topic == self.topic), None)
        self.bring()

    def _take(self, event: tuple[TopicHeader, pa.Array | None]) -> None:
        header, array = event
        self._number = self._earlier + header.sequence
        message, content = values.read(header, array, self._number, self._pixels)
        if header.sequence == 1 and self._last is not None:
            self._waiting.append(values.Gap(message.at - self._last_at))
            for series in self._series.values():
                series.interrupt(message.at)
        self._last, self._last_at = content, message.at
        self._waiting.append(message)
        del self._waiting[:-200]
        for path, number in content.numbers.items():
            if path in self._series or path in self._plotted or len(self._series) < MAX_SERIES:
                self._series.setdefault(path, Series(SECONDS)).add(message.at, number)
        self.bring()

    @property
    def view(self) -> str:
        """The view that is shown; `auto` chooses by the last message."""
        if self.mode != "auto":
            return self.mode
        last = self._last
        if last is None:
            return "echo"
        if last.picture is not None:
            return "picture"
        if last.scan is not None:
            return "scan"
        if last.has_table:
            return "table"
        if isinstance(last.value, dict):
            return "fields"
        return "plot" if last.numbers else "echo"

    def _views(self) -> list[str]:
        """Return the views that can show the last message; all of them before the first one."""
        last = self._last
        if last is None:
            return [name for name in VIEWS[1:] if name != "blocks"]
        can = {
            "fields": bool(last.fields),
            "plot": bool(last.numbers),
            "table": last.has_table or any(each.is_table for each in last.fields),
            "scan": last.scan is not None,
            "picture": last.picture is not None,
            "blocks": last.picture is not None and self.console.options.pixels,
            "echo": True,
        }
        return [name for name, possible in can.items() if possible]

    def action_view(self) -> None:
        """Show the next view."""
        views = self._views()
        at = views.index(self.view) + 1 if self.view in views else 0
        self.mode = views[at % len(views)]
        self._table = ""
        self.repaint()

    def open_chosen(self) -> None:
        """Plot the field under the cursor, or no longer; show a list of structs as a table."""
        field = self._field
        if field is None:
            return
        if field.is_table:
            self.mode, self._table = "table", field.path
        elif field.path in self._plotted:
            self._plotted.remove(field.path)
        elif len(self._plotted) == values.MAX_CURVES:
            self.report(f"{values.MAX_CURVES} curves at most: enter on one removes it", "warn")
        else:
            self._plotted.append(field.path)
        self.repaint()

    def action_back(self) -> None:
        """Go back from a table to the fields that it was opened from, then as usual."""
        if self.view == "table" and self._table:
            self.mode, self._table = "fields", ""
            self.repaint()
        else:
            super().action_back()

    @property
    def _field(self) -> fields.Field | None:
        """The field under the cursor that `enter` does something with."""
        cursor = self.query_one(Grid).cursor
        if self.view != "fields" or self._last is None:
            return None
        chosen = (each for each in self._last.fields if each.path == cursor)
        return next((each for each in chosen if each.is_table or each.number is not None), None)

    def can_open(self) -> bool:
        """Return True if enter plots a field, or opens a table."""
        return self._field is not None

    def paint(self, now: float) -> None:
        """Show the figures and the view."""
        self.query_one("#facts", Canvas).show(self._facts())
        view = self.view
        log, grid = self.query_one(LogView), self.query_one(Grid)
        canvas = self.query_one("#content", Canvas)
        log.display, grid.display = view == "echo", view == "fields"
        canvas.display = view not in ("echo", "fields") or bool(self._plotted and view == "fields")
        shown = log if view == "echo" else grid if view == "fields" else canvas
        if self.focused is not shown and not self.typing:
            self.set_focus(shown)
        waiting, self._waiting = self._waiting, []
        log.add(waiting)
        if view == "fields":
            self._show_fields(grid)
        sharp = self._sharp
        if not (sharp and self.is_active):
            self.console.frames.picture.hide(self)
        canvas.show(self._drawing(canvas, now) if canvas.display else [])
        # Messages of which only some are pictures do not open a subscription each.
        may_come = self.mode in ("auto", "picture") and self._detail.sharp(time.monotonic())
        ask_sharp = sharp or (self._asked_sharp and may_come)
        if self.is_active and ask_sharp != self._asked_sharp:
            self._asked_sharp = ask_sharp
            self.feeds.restart()

    def on_screen_suspend(self) -> None:
        """Delete the picture; under a dialog it is shown in half blocks."""
        self.console.frames.picture.hide(self)
        self._painted = None

    def on_unmount(self) -> None:
        """Delete the picture."""
        self.console.frames.picture.hide(self)

    def _show_fields(self, grid: Grid) -> None:
        rows = {} if self._last is None else {each.path: each for each in self._last.fields}
        curves = {path: at for at, path in enumerate(self._plotted)}
        known = self._last is not None
        grid.show(
            list(rows),
            lambda path: fields.row(rows[path], curves.get(path)),
            dim=self.outdated,
            empty="the message has no fields" if known else self.empty_text("message", known=False),
        )

    def _drawing(self, canvas: Canvas, now: float) -> list[list[Span]]:
        last, size, plain_only = self._last, canvas.size, self.ascii_only
        if last is None:
            return []
        match self.view:
            case "picture" | "blocks":
                return self._picture(canvas)
            case "scan" if last.scan is not None:
                return scan.lines(last.scan, size.width, size.height, ascii_only=plain_only)
            case "table":
                records = fields.at(last.value, self._table)
                if records is None and not self._table:
                    lists = (each.path for each in last.fields if each.is_table)
                    records = fields.at(last.value, next(lists, ""))
                if records is not None:
                    return fields.table(records, ascii_only=plain_only)
                return [[(" no list of structs in the last message", "dim")]]
            case "scan":
                return [
                    [(" no scan: `ranges`, `angle_min` and `angle_increment` are not there", "dim")]
                ]
        curves = {path: self._series[path].points for path in self._curves()}
        # Curves of an output that has stopped sending move out to the left.
        end = None if self.feeds.paused else now
        return plot(curves, size.width, size.height, SECONDS, end, ascii_only=plain_only)

    def _curves(self) -> list[str]:
        """Return the fields to plot: those that were asked for, else the first ones."""
        numbers = [] if self._last is None else list(self._last.numbers)
        wanted = self._plotted or numbers[: values.MAX_CURVES]
        return [path for path in wanted if path in self._series and len(self._series[path])]

    def _picture(self, canvas: Canvas) -> list[list[Span]]:
        assert self._last is not None
        shown, size = self._last.picture, canvas.size
        if shown is None:
            why = self._last.problem or "messages have no `width`, `height` and `encoding`"
            return [[(f" no picture: {words.clean(why)}", "dim")]]
        detail, kept = self._detail, self.console.frames.picture
        now, used = time.monotonic(), time.thread_time()
        # Under a dialog, whose shade changes colours, numbers of pictures would be others.
        if self._sharp and self.is_active:
            detail.measure_pixels(kept.took(), now, used)
            fits = fitting((shown.width, shown.height), size, kept.cell)
            if kept.show(self, shown, fits, detail.pixels):
                canvas.refresh(Region(0, 0, size.width, 1))  # the cells may be the same
            return [[(line, f"{themes.PICTURE}#{kept.number:06x}")] for line in cells(*fits)]
        detail.measure_blocks(self.console.frames.took_s, now, used)
        return picture(
            shown,
            max(8, int(size.width * detail.scale)),
            max(4, int(size.height * detail.scale)),
            levels=detail.levels,
            colour=self.console.options.theme != "mono",
            ascii_only=self.ascii_only,
        )

    def _facts(self) -> list[list[Span]]:
        rate, last = self._rate, self._last
        second: list[Span] = [] if last is not None else [(" waiting for a message", "dim")]
        first: list[Span] = [(" ", "")]
        if rate is None:
            first.append(("measuring", "dim"))
        else:
            old = self.outdated
            first.append((f"{rate.hz:.1f}/s", "dim" if old else "title"))
            first.append((f"   {words.count(rate.bandwidth)}B/s", "dim" if old else ""))
            if rate.mean_ms is not None:
                text = f"   every {rate.mean_ms:.1f} ms"
                if rate.min_ms is not None and rate.max_ms is not None:
                    text += f" (min {rate.min_ms:.1f}, max {rate.max_ms:.1f}"
                    text += f", std {rate.std_ms or 0.0:.1f})"
                first.append((text, "dim"))
        if last is not None:
            if last.dropped:
                first.append((f"   {last.dropped} not shown", "dim"))
            second.append((f" {words.clean(last.kind)}", "dim"))
            second.append((f"   {words.clean(last.was)}" if last.was else "", "dim"))
            second.append((f"   {words.clean(last.problem)}" if last.problem else "", "warn"))
        return [first, second]

    def crumbs(self) -> Crumbs:
        """Name the output and the view."""
        amount = f"view: {self.view} (v)"
        most = self._max_hz
        if self._rate is not None and self._rate.hz > most:
            amount = f"{most:g}/s at most   {amount}"
        return Crumbs(f"{self.dataflow} > {self.topic}", amount=amount)

    def keys(self) -> list[tuple[str, str]]:
        """Add the key for views, and say what enter does."""
        keys, field = super().keys(), self._field
        if self.typing:
            return keys
        does = "table" if field is not None and field.is_table else "plot"
        keys = [(key, does if key == "enter" else label) for key, label in keys]
        return [("v", "view"), *keys]

    def target(self) -> Target:
        """Return the node of the output."""
        node = self.topic.partition("/")[0]
        return Target(self.dataflow, node, title=f"{self.dataflow}/{node}")

    def argv(self) -> Sequence[str]:
        """Return the command that prints the messages."""
        return ("dora", "topic", "echo", "-d", self.dataflow, self.topic)

    def text_lines(self) -> list[str]:
        """Return the figures and what is shown."""
        shown = self.query("#body Painted").results(Painted)
        views = (each for each in shown if each.display and each.id != "facts")
        lines = (line for each in views for line in each.as_text() if PLACEHOLDER not in line)
        return [*map(plain, self._facts()), *lines]
