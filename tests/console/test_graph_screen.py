"""Dataflows of 60 and 200 nodes: an overview, a cursor that goes along edges, and a zoom."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from dorad.control import messages as m
from dorafleet.console.model.topology import Topology, flow_order, topology
from dorafleet.console.view import words
from dorafleet.console.view.glyphs import ASCII, UNICODE
from dorafleet.console.view.graph import graph, overview
from dorafleet.console.view.rows import plain

from .driving import console
from .fakefleet import FakeFleet, edge, node

ROBOT = "arm001"


def names(count: int) -> list[str]:
    return [f"stage_{n % 10}_worker_{n // 10:02}" for n in range(count)]


def edges(count: int) -> list[m.EdgeStats]:
    """Return chains of ten nodes, whose ends all send to one node; one drops, one is broken."""
    all_names = names(count)
    made = [
        edge(ROBOT, f"{source}/out", f"{target}/in")
        for source, target in pairwise(all_names)
        if not target.startswith("stage_0")
    ]
    made += [edge(ROBOT, f"{each}/out", "collect/in") for each in all_names[9::10]]
    made[3] = edge(ROBOT, "stage_3_worker_00/out", "stage_4_worker_00/in", drop_rate=4.1)
    made[12] = edge(ROBOT, "stage_3_worker_01/out", "stage_4_worker_01/in", broken=True)
    return made


def large(count: int) -> Topology:
    status = {"stage_7_worker_02": "failed"}
    nodes = [node(ROBOT, each, status=status.get(each, "running")) for each in names(count)]
    return topology(nodes, edges(count))


def fleet(count: int) -> FakeFleet:
    made = FakeFleet(1)
    made.edges = edges(count)
    top = made.all_nodes_and_edges()
    top.nodes = [node(ROBOT, each) for each in names(count)]
    made.top = lambda: top
    return made


def test_a_narrow_overview_marks_a_silent_source_and_drops_by_one_letter_each() -> None:
    nodes = [node(ROBOT, f"n{at:03}") for at in range(200)]
    drops = {"drop_rate": 4.1}
    edges = [
        edge(ROBOT, "n000/out", "n001/in", broken=True, rate=0.0),
        edge(ROBOT, "n000/out", "n002/in", **drops),
    ]
    shown = overview(topology(nodes, edges), UNICODE, None, 80, 20)
    texts = [text.strip() for line in shown.lines for text, _ in line]
    assert texts[texts.index("n001") + 1] == "X" and texts[texts.index("n002") + 1] == "!"


@pytest.mark.parametrize(("count", "rows"), [(20, 30), (60, 26), (200, 30)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_an_overview_has_all_nodes_in_120_columns_and_says_which_are_sick(
    count: int, rows: int, glyphs: object
) -> None:
    drawn = large(count)
    shown = overview(drawn, glyphs, "stage_4_worker_00", 120, rows)  # type: ignore[arg-type]
    lines = [plain(each) for each in shown.lines]
    assert all(words.width(each) <= 120 for each in lines)
    assert len(lines) <= max(rows, -(-len(drawn.nodes) // 5)), (
        "five whole names fit beside each other"
    )
    text = "\n".join(lines)
    assert all(each in text for each in drawn.nodes)
    assert "[ stage_4_worker_00]" in text
    assert "< stage_3_worker_00" in text and "> stage_5_worker_00" in text
    assert re.search(r"stage_4_worker_01 +XX", text)
    if count > 20:
        assert "xstage_7_worker_02" in text
        styles = {text.strip(): style for spans in shown.lines for text, style in spans}
        assert styles["xstage_7_worker_02"] == "fail"


def test_nodes_are_in_the_order_in_which_messages_pass_them() -> None:
    drawn = large(60)
    place = flow_order(*drawn.shape)
    assert list(place)[-1] == "collect"
    for arrow in drawn.arrows:
        assert place[arrow.source][0] < place[arrow.target][0]
    with_cycle = flow_order(("a", "b", "c"), (("a", "b"), ("b", "c"), ("c", "a")))
    assert list(with_cycle) == ["a", "b", "c"]


def test_the_neighbours_of_a_node_fit_into_120_columns_with_shorter_names() -> None:
    long = [edge(ROBOT, f"a_very_long_name_of_a_camera_{n}/out", "hub/in") for n in range(3)]
    long += [edge(ROBOT, "hub/out", f"a_very_long_name_of_an_arm_{n}/in") for n in range(3)]
    lines = graph(topology([], long), UNICODE, "hub", 120).lines
    assert all(words.width(plain(each)) <= 120 for each in lines)


async def test_the_cursor_goes_along_edges_and_enter_and_escape_zoom(tmp_path: Path) -> None:
    async with console(tmp_path, fleet(60), size=(120, 40), start="graph pick") as driven:
        text = await driven.until("[ stage_4_worker_01]")  # its input is broken
        assert "order: overview" in text and "left right follow" in text
        await driven.press("right", "right")
        await driven.until("[ stage_6_worker_01]")
        await driven.press("left")
        await driven.until("[ stage_5_worker_01]")
        await driven.press("enter")
        text = await driven.until("neighbours of stage_5_worker_01")
        assert "stage_4_worker_01" in text and "stage_3_worker_01" not in text
        await driven.press("left")
        text = await driven.until("neighbours of stage_4_worker_01")
        assert "XX broken" in text
        await driven.press("left", "left", "left", "left")
        await driven.until("neighbours of stage_0_worker_01")
        await driven.press("left")
        await driven.until("gets nothing from another node")
        await driven.press("escape")
        await driven.until("[ stage_0_worker_01]")
        await driven.press("down")
        await driven.until(lambda: "[ stage_0_worker_01]" not in driven.text)


async def test_a_filter_leaves_the_nodes_that_match_and_works_from_a_drawing(
    tmp_path: Path,
) -> None:
    async with console(
        tmp_path, fleet(200), size=(120, 40), start="graph pick stage_1_worker_19"
    ) as driven:
        await driven.until("neighbours of stage_1_worker_19")
        await driven.enter("slash", "worker_07")
        text = await driven.until("10 match")
        assert "stage_3_worker_07" in text and "stage_3_worker_08" not in text
        await driven.press("down", "enter")
        await driven.until("│ >stage_2_worker_07 │")


async def test_a_cursor_in_a_long_overview_stays_on_the_screen(tmp_path: Path) -> None:
    async with console(tmp_path, fleet(200), size=(80, 24), start="graph pick") as driven:
        await driven.until("] XX")  # the cursor begins on the failed node
        await driven.press("end")
        await driven.until("[ collect")
        await driven.press("home")
        await driven.until("[ stage_0_worker_00]")
