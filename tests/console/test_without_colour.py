"""Nothing is said by colour alone: each state has a letter, a word or a number of its own."""

from typing import get_args

import msgspec

from dorad.control import messages as m
from dorad.logrecord import filter_cells
from dorafleet.console.model.logwindow import Entry
from dorafleet.console.model.topology import topology
from dorafleet.console.view import alertrows, rolloutlines
from dorafleet.console.view.glyphs import ASCII, STATES
from dorafleet.console.view.graph import graph
from dorafleet.console.view.loglines import LineLook, spans
from dorafleet.console.view.plot import plot
from dorafleet.console.view.rows import line as row_line
from dorafleet.console.view.rows import plain
from dorafleet.console.view.tables import FLEET, NODES, fleet_row, node_row
from dorafleet.rollout.messages import RolloutRobot, State

from .fakefleet import line, node

NOW = 100.0
STATUSES = ("running", "degraded", "starting", "pending", "restarting", "failed", "stopped")


def test_states_of_robots() -> None:
    rows = [fleet_row(m.FleetRow(robot="a", state=each), NOW) for each in get_args(m.RowState)]
    rows.append(fleet_row(m.FleetRow(robot="a"), NOW, stale=True))
    assert len({row.cells[0].text for row in rows}) == len(rows)
    assert {row.cells[0].text for row in rows} == {" ".join(each) for each in STATES.values()}
    assert len({letter for letter, _ in STATES.values()}) == len(STATES)


def test_the_cursor_and_marks() -> None:
    row = fleet_row(m.FleetRow(robot="a"), NOW)
    shown = [
        plain(row_line(row, [], cursor=cursor, marked=marked))
        for cursor in (False, True)
        for marked in (False, True)
    ]
    assert shown == ["  ", " *", "> ", ">*"]
    assert FLEET[0].drop == NODES[1].drop == 0  # the states are shown at any width


def test_alerts() -> None:
    def alert(**fields: object) -> m.Alert:
        given = {"id": "a", "cause": "c", "text": "t", "severity": "fail", "since": 1.0}
        return m.Alert(**{**given, "robots": ["a"], "count": 1, **fields})  # type: ignore[arg-type]

    kinds = (
        alert(),
        alert(severity="warn"),
        alert(cause="unreachable"),
        alert(acked_by="ana"),
        alert(flapping=3),
    )
    shown = {tuple(cell.text for cell in alertrows.row(each, NOW).cells) for each in kinds}
    assert len(shown) == len(kinds)


def test_nodes_in_tables_and_in_graphs() -> None:
    infos = [node("r", "camera", status=status) for status in STATUSES]
    assert len({node_row(info).cells[2].text for info in infos}) == len(STATUSES)
    drawn = {
        (info.status, chosen): "\n".join(
            map(plain, graph(topology([info], []), ASCII, chosen).lines)
        )
        for info in infos
        for chosen in (None, "camera")
    }
    same = {"degraded": "restarting"}  # both are warnings
    for (status, chosen), text in drawn.items():
        others = [x for (s, c), x in drawn.items() if (same.get(s, s), c) != (status, chosen)]
        assert status in same or text not in others


def test_robots_of_a_rollout() -> None:
    states = get_args(State)
    robots = [
        RolloutRobot(rollout=1, robot="a", batch=1, state=each, reachable=True) for each in states
    ]
    assert len({rolloutlines.row(each, NOW).cells[0].text for each in robots}) == len(states)


def test_levels_of_log_lines() -> None:
    levels = ("stdout", "error", "warn", "info", "debug", "trace")
    shown = {
        plain(spans(Entry(line("t", level=level, at=NOW), failed=False), LineLook(names=6)))
        for level in levels
    }
    assert len(shown) == len(levels)


def test_lines_without_a_level_tell_stderr_from_stdout() -> None:
    both = [
        msgspec.structs.replace(line("t", level="stdout", at=NOW), stream=stream)
        for stream in ("stdout", "stderr")
    ]
    entries = [Entry(each, failed=False) for each in both]
    shown = [plain(spans(each, LineLook(names=6))).split()[1] for each in entries]
    assert shown == ["out", "err"]
    assert [filter_cells(each, NOW)["level"][1] for each in both] == shown


def test_curves_have_their_numbers_at_their_ends() -> None:
    curves = {"[0]": [(0.0, 1.0), (9.0, 5.0)], "[1]": [(0.0, 9.0), (9.0, 5.0)]}
    lines = [plain(each) for each in plot(curves, 40, 8, 10.0, ascii_only=True)]
    assert any(each.endswith("21") for each in lines)  # where both meet, too
    assert "1 [0] 5" in lines[-1] and "2 [1] 5" in lines[-1]
    (only,) = [plain(each) for each in plot({"[0]": curves["[0]"]}, 40, 8, 10.0)][-1:]
    assert "● [0] 5" in only
