"""Widths, rows, orders, the pace of frames, curves, pictures and graphs: functions of data."""

from __future__ import annotations

import re
import unicodedata
from typing import get_args

import pyarrow as pa
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.filters import parse
from dorad.control.pictures import Picture
from dorad.control.roles import may_call
from dorafleet.console.model import commands, places
from dorafleet.console.model.detail import LEVELS
from dorafleet.console.model.fleet import STATES
from dorafleet.console.model.order import FLEET_ORDERS, REST_S, RestingOrder
from dorafleet.console.model.series import Series
from dorafleet.console.model.topology import topology, worst_node
from dorafleet.console.options import options_for
from dorafleet.console.screens import screen_class
from dorafleet.console.view import (
    alertrows,
    auditrows,
    bars,
    fields,
    flowrows,
    loglines,
    paramrows,
    planlines,
    releaserows,
    robotlines,
    rolloutlines,
    rolloutrows,
    tables,
    values,
    words,
)
from dorafleet.console.view.glyphs import ASCII, UNICODE
from dorafleet.console.view.graph import graph
from dorafleet.console.view.graphlayout import layout
from dorafleet.console.view.picture import picture
from dorafleet.console.view.plot import MARGIN, plot
from dorafleet.console.view.robotlines import inspector_lines
from dorafleet.console.view.rows import (
    GAP,
    PREFIX,
    Cell,
    Row,
    cut,
    fitted,
    head,
    last_difference,
    line,
    plain,
)
from dorafleet.rollout.model import Member, Phase, Rollout
from dorafleet.rollout.operate import operate, possible_acts
from dorafleet.rollout.strategy import Strategy

from .fakefleet import edge, node

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text(max_size=40), st.integers(1, 30))
def test_a_text_fits_exactly(text: str, columns: int) -> None:
    fitted_text = words.fit(words.clean(text), columns)
    assert words.width(fitted_text) == columns
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", fitted_text)


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=20))
def test_widths_are_those_of_rich(text: str) -> None:
    # What is newer than one of the two tables has no agreed width.
    assume(all(unicodedata.category(char) != "Cn" for char in text))
    assume(all(cell_len(char) == words.width(char) for char in text))
    assert words.width(text) == cell_len(text)


TABLES = [
    *(tables.FLEET, tables.NODES, tables.EDGES, alertrows.COLUMNS, alertrows.PAST_COLUMNS),
    *(auditrows.COLUMNS, flowrows.COLUMNS, paramrows.COLUMNS, planlines.COLUMNS),
    *(releaserows.COLUMNS, rolloutrows.COLUMNS, rolloutlines.COLUMNS),
]


@pytest.mark.parametrize("columns", TABLES, ids=lambda columns: columns[0].title)
@given(space=st.integers(60, 220))
def test_every_line_of_a_table_fits_into_the_terminal(columns: tuple, space: int) -> None:
    shown = fitted(columns, space)
    row = Row("x", tuple(Cell("日本語 text " * 4) for _ in columns))
    assert words.width(plain(head(shown))) <= space
    assert words.width(plain(line(row, shown, cursor=True, marked=True))) <= space
    assert all(column.drop for at, column in enumerate(columns) if at not in {e.at for e in shown})


@given(st.lists(st.tuples(st.text(max_size=5), st.just("")), max_size=8), st.integers(0, 20))
def test_a_cut_line_never_exceeds_its_columns(spans: list[tuple[str, str]], columns: int) -> None:
    clean = [(words.clean(text), style) for text, style in spans]
    assert words.width(plain(cut(clean, columns))) <= columns


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (192, "3m10s"), (601, "10m"), (7300, "2h01m"), (525600, "6d02h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert words.age(seconds) == text


@given(st.floats(0, 1e15))
def test_numbers_stay_short(value: float) -> None:
    assert len(words.rate(value)) <= 6
    assert len(words.count(value)) <= 6


@given(st.lists(st.lists(st.sampled_from("abcdefg"), unique=True), min_size=1, max_size=8))
def test_rows_keep_their_places_while_the_cursor_moves(orders: list[list[str]]) -> None:
    resting = RestingOrder()
    before = list(resting.arrange(orders[0], 0.0))
    resting.moved(0.0)
    for at, ids in enumerate(orders):
        shown = list(resting.arrange(ids, at * 0.1))
        assert sorted(shown) == sorted(ids)
        kept = [each for each in before if each in ids]
        assert [each for each in shown if each in kept] == kept
        before = shown
    assert list(resting.arrange(orders[-1], REST_S + 0.1)) == orders[-1]


def test_a_curve_is_broken_where_nothing_was_read() -> None:
    series = Series()
    series.add(0.0, 1.0)
    series.interrupt(10.0)
    series.add(10.0, 2.0)
    lines = [plain(line) for line in plot({"[0]": series.points}, 41, 9, 10.0)]
    drawn = "".join(line[MARGIN + 1 :] for line in lines[:-1])
    assert sum(char != " " for char in drawn) == 2, "only the two points"
    assert "● [0] 2" in lines[-1]


def test_a_series_is_bounded_in_time_and_number() -> None:
    series = Series(seconds=10.0, maximum=50)
    for second in range(100):
        series.add(float(second), float(second))
    assert len(series) == 11
    series.add(5.0, 1.0)
    assert series.last == 99.0


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))
        )
    )
)
def test_boxes_of_a_graph_never_overlap_and_each_arrow_reaches_its_ends(
    given_graph: tuple[int, list[tuple[int, int]]],
) -> None:
    count, pairs = given_graph
    names = tuple(f"n{at}" for at in range(count))
    arrows = tuple(dict.fromkeys((f"n{a}", f"n{b}") for a, b in pairs))
    found = layout(names, arrows)
    taken: set[tuple[int, int]] = set()
    for box in found.boxes.values():
        places = {
            (x, y) for x in range(box.x, box.x + box.wide) for y in range(box.y, box.y + box.tall)
        }
        assert not places & taken
        taken |= places
    for (source, target), route in zip(arrows, found.routes, strict=True):
        if source == target:
            assert route is None
            continue
        assert route is not None
        ends = (target, source) if route.backward else (source, target)
        left, right = (found.boxes[end] for end in ends)
        x, y = route.corners[0]
        assert x == left.x + left.wide and left.y < y < left.y + left.tall - 1
        x, y = route.corners[-1]
        assert x == right.x - 1 and right.y < y < right.y + right.tall - 1


def test_a_graph_says_what_is_wrong_on_the_arrow_and_in_the_box() -> None:
    nodes = [node("r", "tracker"), node("r", "planner"), node("r", "gripper", status="failed")]
    edges = [
        edge("r", "tracker/path", "planner/in"),
        edge("r", "gripper/pose", "planner/pose", broken=True),
        edge("r", "planner/out", "tracker/back", drop_rate=4.1),
    ]
    found = topology(nodes, edges)
    assert worst_node(found) == "gripper"
    text = "\n".join(plain(spans) for spans in graph(found, UNICODE).lines)
    assert "29.8/s" in text and "XX broken" in text and "!drop 4.1/s" in text
    assert "◀" in text and "▶" in text and "│x gripper" in text
    plain_text = "\n".join(plain(spans) for spans in graph(found, ASCII).lines)
    assert plain_text.isascii()


def test_a_plot_has_its_limits_and_names() -> None:
    points = [(float(n), float(n % 10)) for n in range(30)]
    lines = [plain(spans) for spans in plot({"[0]": points}, 60, 8, 30.0)]
    assert len(lines) == 8
    assert lines[0].strip().startswith("9")
    assert lines[6].strip().startswith("0")
    assert "[0] 9" in lines[7]
    nothing = plot({"[0]": [(0.0, float("nan"))]}, 60, 8, 30.0)
    assert plain(nothing[0]) == " no numbers yet"
    short = plot({"[0]": points}, 60, 8, 30.0, ascii_only=True)
    assert all(plain(spans).isascii() for spans in short)


def test_a_picture_keeps_its_shape_and_its_colours() -> None:
    red_over_blue = Picture(bytes([255, 0, 0] * 4 + [0, 0, 255] * 4), 4, 2, "")
    assert picture(red_over_blue, 40, 10) == [[("▀▀▀▀", "#ff0000 on #0000ff")]]
    grey = picture(red_over_blue, 40, 10, ascii_only=True)
    assert plain(grey[0]).isascii()
    shades = Picture(bytes(each for shade in range(200) for each in [shade] * 3), 200, 1, "")
    full = picture(shades, 200, 10)
    assert len(full[0]) == 200, "all shades differ"
    assert len(picture(shades, 200, 10, levels=LEVELS[-1])[0]) <= LEVELS[-1]
    assert len(plain(picture(shades, 50, 10)[0])) == 50


def test_each_action_asks_for_a_role_that_the_server_asks_for_too() -> None:
    for action in commands.ACTIONS:
        assert may_call(action.role, action.method)
        below = commands.RANKS[: commands.RANKS.index(action.role)]
        assert not any(may_call(role, action.method) for role in below)
    keys = [action.key for action in commands.ACTIONS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("logs pick gripper", ("logs", ["pick", "gripper"])),
        ("graph arm017/pick planner", ("graph", ["arm017/pick", "planner"])),
        ("al", ("alerts", [])),
        ("fleet 'zone=hall !ok'", ("fleet", ["zone=hall !ok"])),
        ("topic", ("topic", [])),
    ],
)
def test_places(text: str, place: object) -> None:
    assert places.place_of(text) == place


def test_the_terminal_chooses_theme_and_characters() -> None:
    colour = {"TERM": "xterm-256color"}
    assert options_for(colour, encoding="UTF-8").theme == "auto"
    assert options_for({"TERM": "linux"}, encoding="utf-8").theme == "ansi"
    assert options_for(colour | {"NO_COLOR": "1"}, encoding="utf-8").theme == "mono"
    assert options_for(colour, encoding="ANSI_X3.4-1968").ascii_only
    assert not options_for(colour, encoding="UTF-8").ascii_only


@given(st.lists(st.tuples(st.text("ab", min_size=3, max_size=3), st.sampled_from("xy"))))
def test_a_line_is_painted_to_its_last_cell_that_differs(spans: list[tuple[str, str]]) -> None:
    changed = [("zzz", style) if text[0] == "a" else (text, style) for text, style in spans]
    ends = [3 * at + 3 for at, (text, _) in enumerate(spans) if text[0] == "a"]
    assert last_difference(spans, changed) == max(ends, default=0)
    assert last_difference(spans, [*changed, ("one more", "")]) == 0
    assert last_difference(None, changed) == 0


WILD = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=300)


@given(
    st.builds(
        m.FleetRow,
        robot=TEXT,
        state=st.sampled_from(STATES),
        why=TEXT,
        since=st.none() | WILD,
        dataflow=TEXT,
        nodes=st.integers(-(2**63), 2**63),
        cpu=WILD,
        memory=WILD,
        drops=WILD,
        seen_at=st.none() | WILD,
        labels=st.dictionaries(TEXT, TEXT, max_size=3),
        version=TEXT,
        known=st.booleans(),
        findings=st.lists(
            st.builds(
                m.Finding,
                cause=TEXT,
                subject=TEXT,
                text=TEXT,
                severity=st.sampled_from(("warn", "fail")),
                since=WILD,
            ),
            max_size=6,
        ),
    ),
    WILD,
    st.booleans(),
)
def test_whatever_a_robot_says_of_itself_is_a_line_of_visible_text(
    row: m.FleetRow, now: float, stale: bool
) -> None:
    shown = fitted(tables.FLEET, 120)
    lines = [line(tables.fleet_row(row, now, stale=stale), shown)]
    lines += inspector_lines(row, now, stale=stale)
    lines += robotlines.lines(row, row.robot, now, 120, stale=stale)
    for at, spans in enumerate(lines):
        assert not _CONTROL.search(plain(spans))
        assert at > 0 or words.width(plain(spans)) <= 120
    for order in FLEET_ORDERS.values():
        sorted([row, row], key=order)
    parse("cpu>1 since<10m").matches(tables.fleet_cells(row, now))


@given(
    st.builds(
        m.Alert,
        id=TEXT,
        severity=st.sampled_from(("warn", "fail")),
        text=TEXT,
        robots=st.lists(TEXT, max_size=3),
        count=st.integers(0, 10**9),
        since=WILD,
        cause=TEXT,
        acked_by=TEXT,
    ),
    WILD,
)
def test_whatever_an_alert_says_is_a_line_of_visible_text(alert: m.Alert, now: float) -> None:
    text = plain(line(alertrows.row(alert, now), fitted(alertrows.COLUMNS, 80)))
    assert words.width(text) <= 80
    assert not _CONTROL.search(text)


@given(WILD, WILD, WILD, WILD, st.integers(-(2**63), 2**63))
def test_whatever_an_edge_measures_is_a_line(
    rate: float, drops: float, latency: float, bandwidth: float, queued: int
) -> None:
    wild = edge(
        "r",
        "a/b",
        "c/d",
        rate=rate,
        drop_rate=drops,
        latency=latency,
        bandwidth=bandwidth,
        queued=queued,
    )
    assert words.width(plain(line(tables.edge_row(wild), fitted(tables.EDGES, 100)))) <= 100
    graph(topology([], [wild]), UNICODE)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(width=64)), min_size=1, max_size=20))
@example([(0.0, 1.7e308), (1.0, -1.7e308)])
@example([(0.0, float("inf")), (1.0, float("nan"))])
def test_whatever_numbers_a_topic_has_are_a_plot(points: list[tuple[float, float]]) -> None:
    for spans in plot({"[0]": sorted(points)}, 60, 8, 30.0):
        assert words.width(plain(spans)) <= 60


def test_a_message_of_a_few_bytes_that_stands_for_very_many_values_is_a_short_line() -> None:
    nulls = pa.Array.from_buffers(pa.null(), 2**40, [None])
    lists = pa.Array.from_buffers(pa.list_(pa.null(), 2**30), 4, [None], children=[nulls])
    header = m.TopicHeader(stream=0, topic="a/b", sequence=1, dropped=0, metadata={})
    assert values.read(header, lists, 1, (80, 48))[0].text == "…"
    message, content = values.read(header, nulls, 1, (80, 48))
    assert message.text.endswith("None…") and len(content.fields) == fields.MAX_FIELDS + 1


def test_of_a_message_with_a_megabyte_of_metadata_only_the_beginning_is_kept() -> None:
    long = {"preview": "x" * 2**20, "note": ["\x1b[2J"] * 2**17, "number": 10**4000}
    header = m.TopicHeader(stream=0, topic="a/b", sequence=1, dropped=0, metadata=long)
    for kept in values.read(header, pa.array(["y" * 2**17]), 1, (80, 48)):
        assert sum(len(each) for each in kept if isinstance(each, str)) < 6 * values.MAX_TEXT


def test_the_keys_that_do_not_fit_leave_room_for_help() -> None:
    keys = [(f"{n}", "something") for n in range(20)] + [("?", "all keys")]
    text = plain(bars.key_line(keys, 60))
    assert words.width(text) <= 60
    assert text.rstrip().endswith("? all keys")


def test_a_long_message_is_wrapped_and_cut_after_six_lines() -> None:
    lines = bars.message_lines("word " * 100, "warn", 40)
    assert len(lines) == bars.MAX_MESSAGE_LINES
    assert all(words.width(plain(spans)) <= 40 for spans in lines)
    assert plain(lines[-1]).endswith("…")
    assert bars.message_lines("", "", 40) == [[]]


def test_acts_are_offered_in_the_phases_in_which_the_server_does_them() -> None:
    for phase in get_args(Phase):
        for paused in (False, True):
            head = Rollout(
                number=1,
                dataflow="pick",
                release="a",
                name="pick@1",
                strategy=Strategy(),
                size=1,
                by="ana",
                created=0.0,
                phase=phase,
                paused=paused,
            )
            member = Member(robot="arm1", batch=0, before="", order="switch")
            for act in ("pause", "resume", "promote", "abort", "undo"):
                offered = act in possible_acts(phase, paused=paused)
                try:
                    operate(head, [member], act, "ana", 1.0)
                except ControlError:
                    assert not offered, (phase, paused, act)
                else:
                    assert offered, (phase, paused, act)


def test_a_robot_stands_for_its_dataflow_after_a_screen_about_dataflows() -> None:
    rows = {
        "arm017": m.FleetRow(robot="arm017", dataflow="pick"),
        "arm018": m.FleetRow(robot="arm018", dataflow="nav, pick"),
    }
    assert places.with_dataflow("logs", ["arm017", "gripper"], rows) == ["arm017/pick", "gripper"]
    assert places.with_dataflow("logs", ["pick"], rows) == ["pick"]
    assert places.with_dataflow("robot", ["arm018"], rows) == ["arm018"]
    said = places.with_dataflow("logs", ["arm018", "gripper"], rows)
    assert said == "`arm018` runs nav, pick: name one, such as `logs arm018/nav`"
    # Lines of one dataflow are no lines of all.
    said = places.with_dataflow("logs", [], rows)
    assert said == "name a dataflow, such as `logs nav`; there are: nav, pick"
    assert places.with_dataflow("logs", [], {"arm017": rows["arm017"]}) == ["pick"]
    assert places.with_dataflow("logs", [], {}) == []


def test_robots_are_found_by_one_of_their_releases_as_the_column_is_called() -> None:
    row = m.FleetRow(robot="arm1", dataflow="battery, pick", release="battery@1, pick@2")
    titles = {column.key: column.title.lower() for column in tables.FLEET}
    assert parse(f"{titles['release']}=pick@2").matches(tables.fleet_cells(row, 0.0))
    assert not parse("release=pick@20").matches(tables.fleet_cells(row, 0.0))
    columns = [column.key for column in (*tables.FLEET, *tables.FLEET_CURVES)]
    shown = dict(zip(columns, tables.fleet_row(row, 0.0).cells, strict=True))
    assert shown["release"].short == "2 releases"
    varied = tables.varied(["battery@1, pick@2", "battery@1, pick@1", ""])
    assert varied == {"pick"}
    shown = dict(zip(columns, tables.fleet_row(row, 0.0, varied=varied).cells, strict=True))
    assert shown["release"].short == "pick@2 +1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ufefftext", "\\ufefftext"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\\u200d\U0001f469"),
        ("warning \u26a0\ufe0f", "warning \u26a0"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("日本 e\u0301", "日本 e\u0301"),
    ],
)
def test_characters_that_terminals_hide_or_join_are_shown(text: str, shown: str) -> None:
    assert words.clean(text) == shown


@given(st.integers(60, 200), st.integers(0, 60))
def test_names_get_room_before_figures_and_a_row_is_never_wider_than_the_screen(
    columns: int, longest: int
) -> None:
    found = fitted(tables.FLEET, columns, (), {"robot": longest})
    wide = {each.column.key: each.wide for each in found}
    assert PREFIX + sum(each + GAP for each in wide.values()) <= columns
    if columns >= 80:
        assert wide["robot"] >= min(longest, 24)


def test_of_a_line_of_a_megabyte_only_the_beginning_is_kept() -> None:
    short = m.LogRecord(1.0, "info", "arm", "moves")
    long = m.LogRecord(1.0, "info", "arm", "x" * 1_000_000, fields={"all": "y" * 1_000_000})
    assert loglines.shortened(short) is short
    kept = loglines.shortened(long)
    assert len(kept.message) == loglines.MAX_KEPT
    assert kept.fields == {"fields": "left out: they are too long"}


def test_of_megabytes_that_a_robot_sends_only_the_beginning_is_made_visible() -> None:
    text = words.clean("\x1b[2J" * 2**20)
    assert text.startswith(r"\x1b[2J\x1b[2J") and text.endswith("…")
    assert len(text) < 10 * words.MAX_TEXT


def test_a_graph_that_would_take_minutes_is_not_drawn() -> None:
    edges = [edge("arm001", f"node{n}/out", "hub/in") for n in range(2000)]
    [line] = graph(topology([], edges), UNICODE).lines
    assert "2001 nodes with 2000 arrows are too many to draw" in plain(line)


@pytest.mark.parametrize("place", places.PLACES, ids=lambda place: place.name)
def test_every_place_has_its_screen(place: places.Place) -> None:
    assert place.name == screen_class(place.name).NAME
