"""The last ten minutes in one line of bars for each figure, and as points of a drawing."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dorad.control.messages import EdgeCurves, NodeCurves, RobotCurves
from dorad.terminal import BARS, PLAIN_BARS, bars
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Span
from dorafleet.console.view.words import clean

MIN_BARS, MAX_BARS = 6, 24
"""Columns of one figure; the server sends a point for each."""
CELL = 12
"""Columns of a figure in a table."""


class Figure(NamedTuple):
    """One figure over time."""

    name: str
    points: Sequence[float | None]
    text: Callable[[float | None], str]
    """Returns a value with its unit."""
    style: str = "line1"


def of_node(curves: NodeCurves) -> list[Figure]:
    """Return the figures of a node."""
    return [
        Figure("cpu", curves.cpu, lambda value: f"{words.percent(value)}%"),
        Figure("memory", curves.memory, lambda value: f"{words.count(value)}B", "line2"),
    ]


def of_edge(curves: EdgeCurves) -> list[Figure]:
    """Return the figures of an edge."""
    return _traffic(curves.rate, curves.latency_p99, curves.drop_rate)


def of_robot(curves: RobotCurves) -> list[Figure]:
    """Return the figures of all that runs on a robot."""
    return [
        Figure("cpu", curves.cpu, lambda value: f"{words.percent(value)}%"),
        *_traffic(curves.rate, curves.latency_p99, curves.drop_rate),
    ]


def _traffic(
    rate: Sequence[float | None], p99: Sequence[float | None], drops: Sequence[float | None]
) -> list[Figure]:
    return [
        Figure("rate", rate, lambda value: f"{words.rate(value)}/s", "line2"),
        Figure("p99", p99, words.milliseconds, "line4"),
        Figure("drops", drops, lambda value: f"{words.rate(value)}/s", "line3"),
    ]


def cell(points: Sequence[float | None], style: str = "line1", *, ascii_only: bool) -> Cell:
    """Return the cell of a table with ten minutes of bars."""
    return Cell(bars(points, CELL, letters=PLAIN_BARS if ascii_only else BARS), style)


def line(name: str, figures: Sequence[Figure], columns: int, *, ascii_only: bool) -> list[Span]:
    """Return the line about something: of each figure ten minutes of bars and the last value."""
    shown = [each for each in figures if any(value is not None for value in each.points)]
    if not shown:
        return []
    letters = PLAIN_BARS if ascii_only else BARS
    spans: list[Span] = [(f" {clean(name)}", "name"), (" 10 min", "dim")]
    used = sum(words.width(text) for text, _ in spans)
    texts = [each.text(each.points[-1]) for each in shown]
    used += sum(len(each.name) + len(text) + 4 for each, text in zip(shown, texts, strict=True))
    wide = min(MAX_BARS, max(MIN_BARS, (columns - 1 - used) // len(shown)))
    for each, text in zip(shown, texts, strict=True):
        spans += [
            (f"  {each.name} ", "dim"),
            (bars(each.points, wide, letters=letters), each.style),
        ]
        spans.append((f" {text}", ""))
    return spans


def timed(points: Sequence[float | None], step: float) -> list[tuple[float, float]]:
    """Return the points of a drawing, the last one at the time 0; gaps are not numbers."""
    return [
        (step * (place + 1 - len(points)), math.nan if value is None else value)
        for place, value in enumerate(points)
    ]
