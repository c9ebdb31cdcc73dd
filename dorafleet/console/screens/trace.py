"""Screen Trace: the place for message traces, until the server offers `trace.list`."""

from __future__ import annotations

from dorafleet.console.screens.missing import MissingScreen


class TraceScreen(MissingScreen):
    """Message traces."""

    NAME = "trace"
    METHOD = "trace.list"
    ABOUT = (
        "Traces of messages are not part of this version.",
        "Screen Top has the latency and the queue of each edge.",
    )
