"""What is not known now, or was so before, does not look like what is known."""

import time
from pathlib import Path

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.console.view import robotlines
from dorafleet.console.view.plot import plot
from dorafleet.console.view.rows import plain
from dorafleet.console.widgets.grid import Grid

from .driving import console
from .fakefleet import FakeFleet, edge, node

OTHER = "22222222-2222-4222-8222-222222222222"


async def test_figures_are_dim_once_the_server_sends_no_new_ones(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    top = fleet.top

    def ended() -> m.Top:
        raise ControlError("not-found", "dataflow 'pick' has ended")

    async with console(tmp_path, fleet, start="graph pick") as driven:
        await driven.until("node00/out -> node01/in")
        grid = driven.app.screen.query_one("#edges", Grid)
        assert not grid.dim
        fleet.top = ended
        fleet.bell.ring()
        await driven.until("has ended")
        assert grid.dim
        fleet.top = top
        await driven.until(lambda: not grid.dim)


async def test_robots_whose_part_is_lacking_are_named(tmp_path: Path) -> None:
    fleet = FakeFleet(2, nodes=3)
    part = msgspec.structs.replace(fleet.top(), missing={"arm002": "no contact"})
    fleet.top = lambda: part
    async with console(tmp_path, fleet, start="graph pick", shows="no answer: arm002") as driven:
        part = msgspec.structs.replace(part, nodes=[], edges=[])
        driven.app.go_to("robot arm002")
        await driven.until("no node is known (no answer: arm002)")
        assert "no edge is known" in driven.text


async def test_edges_of_several_dataflows_say_to_which_they_belong(tmp_path: Path) -> None:
    nodes = [node("arm001", "a"), node("arm001", "b", dataflow=OTHER, dataflow_name="carry")]
    edges = [
        edge("arm001", "a/out", "b/in", dataflow_name="pick"),
        edge("arm001", "a/out", "b/in", dataflow=OTHER, dataflow_name="carry"),
    ]
    top = m.Top(at=time.time(), window=3.0, nodes=nodes, edges=edges)
    fleet = FakeFleet(1)
    fleet.top = lambda: top
    async with console(tmp_path, fleet, start="top", size=(80, 24)) as driven:
        text = await driven.until("2 of 2 edges")
        rows = [row for row in text.splitlines() if "a/out -> b/in" in row]
        assert [row.split()[-1] for row in rows] == ["carry", "pick"]


def test_a_robot_that_cannot_be_reached_is_never_called_failed() -> None:
    finding = m.Finding(
        cause="unreachable", subject="", text="no contact", severity="fail", since=0.0
    )
    row = m.FleetRow(
        robot="arm002", state="unreach", why="", known=False, since=0.0, findings=[finding]
    )
    beside = "\n".join(plain(spans) for spans in robotlines.inspector_lines(row, 60.0))
    above = "\n".join(
        plain(spans) for spans in robotlines.lines(row, "arm002", 60.0, 100, stale=False)
    )
    assert "? UNREACH" in beside and "fail" not in beside.lower()
    table = [cell.text for cell in robotlines.finding_row(finding, 60.0).cells]
    assert " ? UNREACH" in above and " x " not in above
    assert table[:2] == ["?", "no contact"]


def test_curves_of_an_output_that_sends_nothing_move_out_to_the_left() -> None:
    curves = {"[0]": [(float(n), float(n)) for n in range(30)]}
    now, later, gone = (
        ["".join(text for text, _ in line) for line in plot(curves, 60, 8, 30.0, end)[:-1]]
        for end in (None, 45.0, 90.0)
    )
    assert any(line[-1] != " " for line in now)
    assert all(line[-15:].isspace() for line in later)
    assert all(line[11:].isspace() for line in gone)
