"""A picture of lateness: the share of ticks that were later than a time, for each condition."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from hwtests.bench.chart import FAINT, INK, time_text
from hwtests.bench.stats import percentile
from hwtests.realtime.bench import Case

COLOURS = {
    Case(busy=False, realtime=False): "#e0916f",
    Case(busy=False, realtime=True): "#5bb98c",
    Case(busy=True, realtime=False): "#a33b20",
    Case(busy=True, realtime=True): "#1f6f54",
}
WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 110, 50
NINES = ((0, "all"), (1, "1 in 10"), (2, "1 in 100"), (3, "1 in 1,000"), (4, "1 in 10,000"))
_STEPS = 20
"""Points of a line for each tenfold rarer tick."""


def picture(found: Mapping[Case, Sequence[float]], caption: str) -> str:
    """Return the picture as SVG; `found` has the sorted times in µs."""
    values = [value for late in found.values() for value in (late[0], late[-1])]
    low = math.floor(math.log10(max(min(values), 1.0)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    rarest = min(NINES[-1][0], math.log10(min(map(len, found.values()))))

    def place(nines: float, us: float) -> tuple[float, float]:
        x = LEFT + nines / rarest * (WIDTH - LEFT - RIGHT)
        share = (math.log10(max(us, 10.0**low)) - low) / (high - low)
        return x, HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    body = [*_heading(caption, list(found))]
    for decade in range(low, high + 1):
        _, y = place(0, 10.0**decade)
        body.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{FAINT}"/>')
        body.append(_text(LEFT - 8, y + 4, time_text(10.0**decade), "end"))
    for nines, label in NINES:
        if nines <= rarest:
            x, y = place(nines, 10.0**low)
            body.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{FAINT}"/>')
            anchor = "start" if nines == 0 else "end" if nines == rarest else "middle"
            body.append(_text(x, y + 20, label, anchor))
    for case, late in found.items():
        steps = [step / _STEPS for step in range(int(rarest * _STEPS) + 1)] + [rarest]
        points = [place(nines, percentile(late, 1 - 10.0**-nines)) for nines in steps]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(
            f'<polyline points="{line}" fill="none" stroke="{COLOURS[case]}" stroke-width="2.5"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>\n'
    )


def _heading(caption: str, cases: list[Case]) -> Iterator[str]:
    title = "How late a node handles the ticks of a 1 ms timer: share of ticks that are later"
    yield _text(LEFT, 26, title, extra='font-size="17" font-weight="bold"')
    yield _text(LEFT, 46, f"{caption}. Both scales logarithmic, lower is better.")
    for index, case in enumerate(cases):
        x, y = LEFT + 200 * index, 76
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{COLOURS[case]}"/>'
        yield _text(x + 18, y, case.name)


def _text(x: float, y: float, text: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'
