"""The same tables as Markdown, for the documentation."""

from collections.abc import Iterable

from hwtests.bench.stats import Summary
from hwtests.bench.table import NOTE, losses, number, other_rows, rows, size_text


def page(summary: Summary, caption: str) -> str:
    """Return a page with both tables, the losses and an explanation."""
    headings, cells = other_rows(summary)
    parts = [
        "# Benchmarks against dora 1.1.0",
        (
            f"{caption}. Medians over rounds in which the systems took turns; every round of every "
            "figure is in [results.json](results.json). Made by `make bench`."
        ),
        "![Round trips by payload](roundtrip.svg)",
        _table(
            ("measure", "payload", "ours", "p99", "dora", "p99", "better by", "target"),
            (
                (
                    row.measure,
                    size_text(row.size),
                    number(row.ours, row.metric),
                    number(row.ours_p99, "p99_us") if row.ours_p99 is not None else "",
                    number(row.peer, row.metric),
                    number(row.peer_p99, "p99_us") if row.peer_p99 is not None else "",
                    f"{row.times:.3g}x" if row.times is not None else "",
                    row.verdict,
                )
                for row in rows(summary)
            ),
        ),
        NOTE,
    ]
    if cells:
        parts += ["## Below a dataflow: raw round trips, p50", _table(headings, cells)]
    if lost := losses(summary):
        parts += ["## Lost or dropped", "\n".join(f"- {line}" for line in lost)]
    return "\n\n".join(parts) + "\n"


def _table(headings: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(headings)
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
