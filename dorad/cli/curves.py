"""The last ten minutes as lines of bars, for `dora node info` and `dora topic info`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dorad.commandline.tables import megabytes, milliseconds, percent, plain
from dorad.control.errors import ControlError
from dorad.terminal import BARS, PLAIN_BARS, bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.control.client import Client
    from dorad.control.messages import EdgeCurves, History, NodeCurves

WIDTH = 60


def read_history(client: Client, dataflow: str, node: str | None = None) -> History | None:
    """Return the last ten minutes; None from a daemon of an older version, which keeps none."""
    try:
        return client.history(dataflow, node=node)
    except ControlError as error:
        if error.code != "unknown-method":
            raise
        return None


def node_lines(curves: NodeCurves) -> Iterator[str]:
    """Yield the lines about a node's resources; none if nothing was measured."""
    yield from _line("CPU", curves.cpu, percent)
    yield from _line("memory", curves.memory, megabytes)


def edge_lines(curves: EdgeCurves) -> Iterator[str]:
    """Yield the lines about an edge; about drops only if there were some."""
    yield from _line("rate", curves.rate, _a_second)
    if any(curves.drop_rate):
        yield from _line("drops", curves.drop_rate, _a_second)
    yield from _line("p99", curves.latency_p99, lambda each: f"{milliseconds(each)} ms")


def edge_json(curves: EdgeCurves, step: float) -> dict[str, Any]:
    """Return the curves of an edge, with the seconds between two points."""
    names = ("rate", "drop_rate", "latency_p50", "latency_p99")
    return {"step": step} | {name: plain(getattr(curves, name)) for name in names}


def _line(name: str, points: Sequence[float | None], text: Callable[[float], str]) -> Iterator[str]:
    known = [each for each in points if each is not None]
    if not known:
        return
    letters = BARS if sys.stdout.encoding.lower() == "utf-8" else PLAIN_BARS
    drawn = bars(points, WIDTH, letters=letters).lstrip()
    yield f"{name:7} {drawn}  {text(min(known))} to {text(max(known))}, now {text(known[-1])}"


def _a_second(count: float) -> str:
    return f"{count:.1f}/s"
