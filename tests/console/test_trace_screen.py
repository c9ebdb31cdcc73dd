"""Screen Trace: the slowest messages of a dataflow or an edge, and the waterfall of one."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from dorad.control import messages as m
from dorad.trace.waterfall import waterfall
from dorafleet.console.widgets.grid import Grid

from .driving import console
from .fakefleet import FakeFleet, edge

PATH = "camera/tick \u2192 camera \u2192 detector"


def trace(number: int, ms: float, robot: str = "arm001", **fields: object) -> m.Trace:
    """Return a trace of so many milliseconds: the detector waits for half of them."""
    whole = ms / 1e3
    spans = [
        m.Span(topic="camera/tick", node="camera", input="tick", sent=0.0, tick=True,
               received=0.0, done=whole / 4),
        m.Span(topic="camera/image", node="detector", input="image", sent=whole / 4, parent=0,
               received=whole * 3 / 4, done=whole, wait=whole / 2),
    ]  # fmt: skip
    made = m.Trace(
        id=f"{number:032x}", dataflow="1", start=1_800_000_000.0 + number, duration=whole,
        path=PATH, span_count=2, spans=spans, machine=robot, dataflow_name="pick",
    )  # fmt: skip
    return replace(made, **fields)


def traced() -> FakeFleet:
    fleet = FakeFleet(1, nodes=2)
    fleet.traces = [trace(1, 20), trace(2, 84.1, dropped=1), trace(3, 30)]
    fleet.trace_paths = [
        m.TracePath(
            dataflow="1", path=PATH, count=99, p50=0.031, p99=0.066, worst=0.0841, wait=0.5,
            work=0.5, transport=0.0, worst_id=trace(2, 84.1).id, machine="arm001",
        )
    ]  # fmt: skip
    return fleet


async def test_the_slowest_message_is_on_top_and_where_its_time_went_is_below(
    tmp_path: Path,
) -> None:
    fleet = traced()
    fleet.trace_counts = m.TraceCounts(overwritten=12)
    async with console(tmp_path, fleet, start="trace arm001/pick") as driven:
        text = await driven.until("(path p50 31.0, p99 66.0 ms)")
        rows = driven.app.screen.query_one(Grid).as_text()[1:]
        assert [row.split()[:2] for row in rows] == [["84.1", "ms"], ["30.0", "ms"], ["20.0", "ms"]]
        assert "1 dropped" in text
        assert "records 12 overwritten" in text
        # One code with the command.
        for line in waterfall(fleet.traces[1], 98, path=fleet.trace_paths[0]):
            assert line.rstrip() in text
        await driven.press("down")
        await driven.until("30.0 ms   (path")
        await driven.press("y")
        await driven.until("$ dora trace list --slow -d arm001/pick")


async def test_enter_gives_the_waterfall_the_whole_screen_and_esc_takes_it_back(
    tmp_path: Path,
) -> None:
    async with console(tmp_path, traced(), start="trace arm001/pick", size=(80, 24)) as driven:
        await driven.until("p99 66.0 ms")
        await driven.press("enter")
        text = await driven.until(lambda: "PROBLEMS" not in driven.text)
        assert "detector  process" in text or "detector process" in text
        await driven.press("y")
        await driven.until("$ dora trace view 00000000 -d arm001/pick")
        await driven.press("escape")
        await driven.until("PROBLEMS")
        await driven.press("escape")
        await driven.until("Fleet")


async def test_o_lists_the_newest_first_and_a_filter_chooses(tmp_path: Path) -> None:
    async with console(tmp_path, traced(), start="trace arm001/pick", shows="3 of 3") as driven:
        await driven.press("o")
        await driven.until(lambda: first_row(driven.text).startswith(">    30.0 ms"))
        await driven.type("/duration>50ms\r")
        await driven.until("1 of 3")
        assert "84.1 ms" in driven.text


def first_row(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(">"))


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [((), ["node00"]), (("tab",), ["node00/out", "node01"])],
    ids=["a node", "an edge"],
)
async def test_one_key_leads_from_a_row_to_the_slowest_message_through_it(
    tmp_path: Path, keys: tuple[str, ...], wanted: list[str]
) -> None:
    fleet = traced()
    fleet.edges = [edge("arm001", "node00/out", "node01/in", dataflow_name="pick")]
    for each in fleet.traces[1:]:
        each.spans[1] = replace(each.spans[1], topic="node00/out", node="node01")
    async with console(tmp_path, fleet, start="robot arm001", shows="1 of 1 edges") as driven:
        await driven.press(*keys)
        await driven.press("T")
        text = await driven.until("2 of 2")
        assert " > ".join(("Trace > arm001/pick", *wanted)) in text
        await driven.until("84.1 ms   (path")


async def test_a_trace_that_is_no_longer_kept_is_told(tmp_path: Path) -> None:
    fleet = traced()
    async with console(tmp_path, fleet, start="trace arm001/pick") as driven:
        await driven.until("(path p50 31.0")
        fleet.without = ()
        kept, fleet.traces = fleet.traces, []
        await driven.press("down")
        await driven.until("this trace is no longer kept")
        fleet.traces = kept


async def test_without_traces_the_screen_says_so(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, start="trace arm001/pick", shows="no trace") as driven:
        fleet.without = ("trace.list", "trace.paths")
    old = FakeFleet(1)
    old.without = ("trace.list", "trace.paths")
    async with console(tmp_path, old, start="trace arm001/pick") as driven:
        await driven.until("no answer")
