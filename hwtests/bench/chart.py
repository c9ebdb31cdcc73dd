"""A picture of the round trips: bars on a logarithmic scale, a group for every payload size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from hwtests.bench.stats import Key, Summary
from hwtests.bench.table import size_text
from hwtests.bench.targets import OURS, PEER


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of bars."""

    label: str
    measure: str
    system: str
    colour: str


SERIES = (
    Series("ours, heap array", "round trip", OURS, "#1f6f54"),
    Series("ours, allocated in shared memory", "round trip, allocated in shm", OURS, "#5bb98c"),
    Series("ours, heap array, spinning off", "round trip, spin off", OURS, "#b7dfca"),
    Series("dora 1.1.0, heap array", "round trip", PEER, "#a33b20"),
    Series("dora 1.1.0, send_output_raw", "round trip, allocated in shm", PEER, "#e0916f"),
    Series("iceoryx2, raw bytes, blocking", "round trip", "iceoryx2 blocking", "#44588c"),
    Series("iceoryx2, raw bytes, busy polling", "round trip", "iceoryx2 polling", "#a3b1d6"),
)
FLOORS = (
    ("eventfd free", "bare eventfd, unpinned"),
    ("eventfd pinned", "bare eventfd, one core"),
)
WIDTH, HEIGHT = 1240, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 118, 40
INK, FAINT = "#222222", "#dddddd"


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis of whole decades, in µs."""

    low: int
    high: int

    def y(self, value: float) -> float:
        """Return the height on the page of a time in µs."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def scale_for(values: list[float]) -> Scale:
    """Return the decades that hold all values.

    Raises:
        ValueError: there are none.
    """
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return Scale(low, max(high, low + 1))


def chart(summary: Summary, caption: str) -> str:
    """Return the picture as SVG.

    Raises:
        ValueError: the summary holds no round trip.
    """
    shown = [s for s in SERIES if any(_value(summary, s, key.size) for key in summary)]
    sizes = sorted({k.size for k in summary if k.measure == "round trip" and k.size})
    floors = [(label, _p50(summary, system)) for system, label in FLOORS]
    bars = [value for s in shown for size in sizes if (value := _value(summary, s, size))]
    scale = scale_for(bars + [value for _, value in floors if value])
    body = [
        *_heading(caption, shown),
        *_axis(scale),
        *_bars(summary, shown, sizes, scale),
        *_floors(floors, scale),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>\n'
    )


def _p50(summary: Summary, system: str) -> float | None:
    return summary.get(Key("round trip", system, 0, "p50_us"))


def _value(summary: Summary, series: Series, size: int) -> float | None:
    return summary.get(Key(series.measure, series.system, size, "p50_us"))


def _text(x: float, y: float, text: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'


def _heading(caption: str, shown: list[Series]) -> Iterator[str]:
    title = "Round trip between two Python nodes: payload out, 8-byte answer back (p50)"
    yield _text(LEFT, 26, title, extra='font-size="17" font-weight="bold"')
    yield _text(LEFT, 46, f"{caption}. Logarithmic scale, lower is better.", extra='fill="#666"')
    for index, series in enumerate(shown):
        x, y = LEFT + 260 * (index % 4), 68 + 20 * (index // 4)
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{series.colour}"/>'
        yield _text(x + 18, y, series.label)


def _axis(scale: Scale) -> Iterator[str]:
    for decade in range(scale.low, scale.high + 1):
        y = scale.y(10.0**decade)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{FAINT}"/>'
        yield _text(LEFT - 8, y + 4, time_text(10.0**decade), "end")


def _bars(summary: Summary, shown: list[Series], sizes: list[int], scale: Scale) -> Iterator[str]:
    group = (WIDTH - LEFT - RIGHT) / len(sizes)
    width = (group - 24) / len(shown)
    base = HEIGHT - BOTTOM
    for place, size in enumerate(sizes):
        left = LEFT + place * group + 12
        yield _text(left + (group - 24) / 2, base + 24, size_text(size), "middle")
        for index, series in enumerate(shown):
            value = _value(summary, series, size)
            if value is None:
                continue
            x, y = left + index * width, scale.y(value)
            yield (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                f'height="{base - y:.1f}" fill="{series.colour}">'
                f"<title>{escape(series.label)}: {time_text(value)}</title></rect>"
            )
            # Upright: two neighbours with a unit each would not fit side by side.
            middle = x + width / 2 + 3
            turn = f'font-size="11" transform="rotate(-90 {middle:.1f} {y - 5:.1f})"'
            yield _text(middle, y - 5, time_text(value), extra=turn)


def _floors(floors: list[tuple[str, float | None]], scale: Scale) -> Iterator[str]:
    known = [(label, value) for label, value in floors if value is not None]
    # The higher one is labelled above its line, the lower one below: they may lie close together.
    for above, (label, value) in enumerate(sorted(known, key=lambda floor: floor[1])):
        y = scale.y(value)
        yield (
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{INK}" '
            'stroke-dasharray="5 4" opacity="0.6"/>'
        )
        first = y - 16 if above else y + 10
        for line, text in enumerate((label, time_text(value))):
            yield _text(WIDTH - RIGHT + 8, first + 14 * line, text, extra='font-size="11"')


def time_text(us: float) -> str:
    """Return a time in µs with a suitable unit."""
    if us < 1_000:
        return f"{us:.2g} µs" if us < 10 else f"{us:.0f} µs"
    return f"{us / 1e3:.2g} ms" if us < 10_000 else f"{us / 1e3:.0f} ms"
