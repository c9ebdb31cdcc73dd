"""The table of a run: each measure and size, ours beside the peers, and the target."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from hwtests.bench.stats import Key, Summary, ratio
from hwtests.bench.targets import OURS, PEER, Verdict, verdicts

METRICS = {
    "p50_us": ("p50", "µs", True),
    "per_s": ("received", "/s", False),
    "cpu_percent": ("both nodes", "% of a core", True),
    "s": ("start to exit", "ms", True),
}
"""The metric that stands for a measure: its name, its unit, whether less is better."""

NOTE = (
    "A round trip is the payload out and 8 bytes back (echo: the payload back); with metadata, a "
    "number goes along both ways. Allocated in shm: node.empty here, send_output_raw under dora, "
    "only the first 8 bytes written. Nested: a struct of ten numbers (80 B), a text (100 B), a "
    "list of 1,000 boxes, a struct with a picture (1 MiB), which the receiver reads as an array; "
    "bare: as many plain bytes. C and Python: the payload from a node in C to one in Python. "
    "Spaced: 4 ms apart, 50 ms at 8 MiB. Burst: a queue of 1000, "
    "messages received per second. Fan-out: the slowest of four receivers. Hello and first tick: "
    "from start to exit; CPU: the time of all processes."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``times`` says how many times better ours is than dora's."""

    measure: str
    size: int
    metric: str
    ours: float | None
    ours_p99: float | None
    peer: float | None
    peer_p99: float | None
    times: float | None
    verdict: str
    reached: bool | None


def rows(summary: Summary) -> Iterator[Row]:
    """Return every measure of ours and dora's, in the order of measurement."""
    judged: dict[tuple[str, int], list[Verdict]] = {}
    for verdict in verdicts(summary):
        place = verdict.target.ours.measure, verdict.target.ours.size
        judged.setdefault(place, []).append(verdict)
    seen: set[tuple[str, int, str]] = set()
    for key in summary:
        place3 = key.measure, key.size, key.metric
        if key.metric not in METRICS or key.system not in (OURS, PEER) or place3 in seen:
            continue
        seen.add(place3)
        ours = summary.get(Key(key.measure, OURS, key.size, key.metric))
        peer = summary.get(Key(key.measure, PEER, key.size, key.metric))
        less_is_better = METRICS[key.metric][2]
        found = judged.get((key.measure, key.size), [])
        yield Row(
            key.measure,
            key.size,
            key.metric,
            ours,
            summary.get(Key(key.measure, OURS, key.size, "p99_us")),
            peer,
            summary.get(Key(key.measure, PEER, key.size, "p99_us")),
            ratio(peer, ours) if less_is_better else ratio(ours, peer),
            "; ".join(str(verdict) for verdict in found),
            all(verdict.reached for verdict in found) if found else None,
        )


def size_text(size: int) -> str:
    """Return a payload size with its unit; an empty text without a payload."""
    if not size:
        return ""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


def number(value: float | None, metric: str) -> str:
    """Return a figure with three significant digits and its unit."""
    if value is None:
        return "-"
    unit = METRICS[metric][1] if metric in METRICS else "µs"
    if unit == "ms":
        value *= 1e3
    elif unit == "µs" and value >= 10_000:
        value, unit = value / 1e3, "ms"
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits}{unit}" if unit == "/s" else f"{digits} {unit}"


def main_table(summary: Summary) -> Table:
    """Return the table of ours beside dora 1.1.0."""
    table = Table(title="ours beside dora 1.1.0, medians over rounds", title_justify="left")
    table.add_column("measure", no_wrap=True)
    for name in ("payload", "ours", "p99", "dora", "p99", "better by"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("target")
    previous = ""
    for row in rows(summary):
        if previous and row.measure != previous:
            table.add_section()
        style = {True: "green", False: "yellow", None: ""}[row.reached]
        table.add_row(
            row.measure if row.measure != previous else "",
            size_text(row.size),
            number(row.ours, row.metric),
            number(row.ours_p99, "p99_us") if row.ours_p99 is not None else "",
            number(row.peer, row.metric),
            number(row.peer_p99, "p99_us") if row.peer_p99 is not None else "",
            f"{row.times:.3g}x" if row.times is not None else "",
            f"[{style}]{row.verdict}[/]" if style else "",
        )
        previous = row.measure
    return table


def other_rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the other systems, a line for each."""
    sizes = sorted({key.size for key in _others(summary)})
    lines = [
        [
            measure,
            system,
            *(
                ""
                if (p50 := summary.get(Key(measure, system, size, "p50_us"))) is None
                else number(p50, "p50_us")
                for size in sizes
            ),
        ]
        for measure, system in dict.fromkeys((k.measure, k.system) for k in _others(summary))
    ]
    return ["measure", "system", *(size_text(size) or "wake-up" for size in sizes)], lines


def other_table(summary: Summary) -> Table:
    """Return the table of floor and iceoryx2: round trips without Arrow, metadata and queues."""
    table = Table(title="below a dataflow: raw round trips, p50", title_justify="left")
    headings, lines = other_rows(summary)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def losses(summary: Summary) -> list[str]:
    """Return a line for every measure with lost or dropped messages (medians over rounds)."""
    found = []
    for key, value in summary.items():
        where = f"{key.system}: {key.measure}, {size_text(key.size)}"
        if key.metric == "lost" and value:
            found.append(f"{where}: {value:g} messages lost")
        if key.metric == "sent":
            received = summary[Key(key.measure, key.system, key.size, "received")]
            if received < value:
                found.append(f"{where}: {received:g} of {value:g} received")
    return found


def _others(summary: Iterable[Key]) -> Iterator[Key]:
    return (key for key in summary if key.system not in (OURS, PEER))
