"""Screen Topic: one output as text, curves, or a picture, reduced where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dorad.control.messages import Preview
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.series import Series
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.workingkeys import in_order
from dorafleet.console.view import values, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.picture import picture
from dorafleet.console.view.plot import plot
from dorafleet.console.widgets.lines import Canvas, LogView

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    from textual.binding import BindingType
    from textual.widget import Widget

    from dorad.control.asyncclient import AsyncClient, AsyncStream
    from dorad.control.messages import TopicHeader, TopicRate, TopicRates
    from dorafleet.console.view.rows import Span

VIEWS = ("auto", "echo", "plot", "picture")
RATE_HZ = 10.0
PICTURE_HZ = 4.0
"""A picture costs many bytes on the way to the terminal."""
SLOW_S = 0.3
"""A frame that takes longer makes the next picture smaller."""
MIN_SCALE = 0.2
SECONDS = 30.0
"""What the curves show."""


class TopicScreen(ConsoleScreen):
    """One output."""

    NAME = "topic"
    AUTO_FOCUS = "LogView"
    BINDINGS: ClassVar[list[BindingType]] = in_order(("v", "view", "view"))

    def __init__(self, dataflow: str, topic: str, view: str = "auto") -> None:
        super().__init__()
        self.dataflow = dataflow
        self.topic = topic
        self.mode = view
        self._rate: TopicRate | None = None
        self._last: values.Message | None = None
        self._scale = 1.0
        self._subscribed_hz = 0.0
        """The rate of the subscription."""
        self._waiting: list[values.Message | values.Gap] = []
        self._earlier = 0
        """Number of messages of earlier subscriptions."""
        self._series = [Series(SECONDS) for _ in range(values.MAX_CURVES)]

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about an output."""
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in VIEWS):
            return f"name an output: `topic pick camera/image [{'|'.join(VIEWS)}]`"
        return cls(*words)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return TopicScreen(self.dataflow, self.topic, self.mode)

    def body(self) -> Iterable[Widget]:
        """Return the figures, then the views, of which one is shown."""
        yield Canvas(id="facts", classes="auto")
        yield LogView(values.line)
        yield Canvas(id="picture", classes="view")

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

    def _subscribed(self, client: AsyncClient) -> AsyncStream[tuple[TopicHeader, pa.Array | None]]:
        self._earlier = 0 if self._last is None else self._last.number
        self._subscribed_hz = self._max_rate
        size = Preview(width=max(8, self.size.width), height=max(8, 2 * self.size.height))
        return client.echo(
            [self.topic],
            dataflow=self.dataflow,
            queue_size=1,
            max_rate_hz=self._subscribed_hz,
            preview=size,
        )

    def _use_rate(self) -> None:
        """Subscribe again if the view wants another rate, once it is known what comes."""
        if self._last is not None and self._subscribed_hz != self._max_rate:
            self.feeds.restart()

    @property
    def _max_rate(self) -> float:
        return PICTURE_HZ if self.view == "picture" else RATE_HZ

    def _take_rates(self, rates: TopicRates) -> None:
        self._rate = next((each for each in rates.rates if each.topic == self.topic), None)
        self.bring()

    def _take(self, event: tuple[TopicHeader, pa.Array | None]) -> None:
        header, array = event
        message = values.read(header, array, self._earlier + header.sequence)
        last, self._last = self._last, message
        if header.sequence == 1 and last is not None:
            self._waiting.append(values.Gap(message.at - last.at))
            for series in self._series:
                series.interrupt(message.at)
        # Ten thousand messages are kept: their texts, not their pictures.
        self._waiting.append(message._replace(image=None))
        del self._waiting[:-200]
        for series, value in zip(self._series, message.numbers, strict=False):
            series.add(message.at, value)
        self.bring()
        self._use_rate()

    @property
    def view(self) -> str:
        """The view that is shown; `auto` chooses by the last message."""
        if self.mode != "auto":
            return self.mode
        if self._last is not None and self._last.image is not None:
            return "picture"
        return "plot" if self._last is not None and self._last.numbers else "echo"

    def action_view(self) -> None:
        """Show the next view."""
        self.mode = VIEWS[VIEWS.index(self.view) % 3 + 1]
        self._use_rate()
        self.repaint()

    def paint(self, now: float) -> None:
        """Show the figures and the view."""
        self.query_one("#facts", Canvas).show(self._facts())
        log, canvas = self.query_one(LogView), self.query_one("#picture", Canvas)
        log.display, canvas.display = self.view == "echo", self.view != "echo"
        waiting, self._waiting = self._waiting, []
        log.add(waiting)
        if self.view == "plot":
            canvas.show(self._curves(canvas, now))
        elif self.view == "picture":
            canvas.show(self._picture(canvas))

    def _curves(self, canvas: Canvas, now: float) -> list[list[Span]]:
        curves = {f"[{n}]": each.points for n, each in enumerate(self._series) if len(each)}
        size = canvas.size
        # Curves of an output that has stopped sending move out to the left.
        end = None if self.feeds.paused else now
        return plot(curves, size.width, size.height, SECONDS, end, ascii_only=self.ascii_only)

    def _picture(self, canvas: Canvas) -> list[list[Span]]:
        if self._last is None:
            return []
        if self._last.image is None:
            return [[(" no picture: messages have no `width`, `height` and `encoding`", "dim")]]
        pixels, width, height = self._last.image
        size = canvas.size
        # Over a slow line a small picture of now is worth more than a large old one.
        if self.console.frames.took_s > SLOW_S:
            self._scale = max(MIN_SCALE, self._scale * 0.7)
        elif self.console.frames.took_s < SLOW_S / 4:
            self._scale = min(1.0, self._scale * 1.1)
        colour = self.console.options.theme != "mono"
        return picture(
            pixels,
            width,
            height,
            max(8, int(size.width * self._scale)),
            max(4, int(size.height * self._scale)),
            colour=colour,
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
            first.append((f"   {words.clean(last.was)}" if last.was else "", "dim"))
            if last.dropped:
                first.append((f"   {last.dropped} not shown", "dim"))
        return [first, second]

    def crumbs(self) -> Crumbs:
        """Name the output and the view."""
        amount = f"view: {self.view} (v)"
        if self._rate is not None and self._rate.hz > self._max_rate:
            amount = f"{self._max_rate:g}/s at most   {amount}"
        return Crumbs(f"{self.dataflow} > {self.topic}", amount=amount)

    def keys(self) -> list[tuple[str, str]]:
        """Add the key for views."""
        keys = super().keys()
        return keys if self.typing else [("v", "view"), *keys]

    def target(self) -> Target:
        """Return the node of the output."""
        node = self.topic.partition("/")[0]
        return Target(self.dataflow, node, title=f"{self.dataflow}/{node}")

    def argv(self) -> Sequence[str]:
        """Return the command that prints the messages."""
        return ("dora", "topic", "echo", "-d", self.dataflow, self.topic)

    def text_lines(self) -> list[str]:
        """Return the figures and what is shown."""
        facts = ["".join(text for text, _ in line) for line in self._facts()]
        shown = self.query_one(LogView if self.view == "echo" else "#picture")
        assert isinstance(shown, LogView | Canvas)
        return facts + ["".join(text for text, _ in line) for line in shown.lines]
