"""The curves of nodes and edges: what a point shows, what is forgotten, what is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.daemon.measuring.history import MAX_ANSWERED, MAX_SERIES, POINTS, STEP_S, History
from dorad.terminal import BARS, bars


def edge(rate: float, *, target: str = "b/in", flow: str = "f") -> m.EdgeStats:
    return m.EdgeStats(
        dataflow=flow,
        source="a/out",
        target=target,
        queue_size=10,
        sent=0,
        received=0,
        dropped=0,
        queued=0,
        payload=0,
        rate=rate,
        drop_rate=0.0,
        bandwidth=0.0,
        latency=None,
        jitter=None,
        latency_p50=None if rate == 0 else 0.001,
        latency_p99=None if rate == 0 else 0.004,
    )


def cpu(percent: float) -> m.NodeMetrics:
    return m.NodeMetrics(cpu=percent, memory=2_000_000)


def points(history: History, node: str | None = None) -> m.History:
    return history.read("f", node, at=0.0)


def test_a_point_comes_every_five_seconds_and_the_newest_is_last() -> None:
    history = History()
    now = 1000.0
    assert history.due(now)
    history.add(now, {("f", "a"): cpu(10)}, [edge(30)])
    assert not history.due(now + STEP_S - 0.1)
    assert history.due(now + STEP_S)
    history.add(now + STEP_S, {("f", "a"): cpu(20)}, [edge(40)])
    answer = points(history)
    assert answer.nodes[0].cpu[-2:] == [10, 20]
    assert answer.nodes[0].cpu[:-2] == [None] * (POINTS - 2)
    assert answer.nodes[0].memory[-1] == 2_000_000
    assert answer.edges[0].rate[-2:] == [30, 40]
    assert answer.edges[0].latency_p99[-1] == 0.004
    assert answer.step == STEP_S


def test_what_is_not_measured_is_a_gap_and_not_a_zero() -> None:
    """The machine has slept, or nothing was received."""
    history = History()
    history.add(1000.0, {}, [edge(30)])
    history.add(1000.0 + 3 * STEP_S, {}, [edge(0)])
    (curves,) = points(history).edges
    assert curves.rate[-4:] == [30, None, None, 0]
    assert curves.latency_p50[-4:] == [0.001, None, None, None]


def test_an_edge_that_ended_keeps_its_curve_for_ten_minutes() -> None:
    history = History()
    history.add(1000.0, {}, [edge(30)])
    history.add(1000.0 + (POINTS - 1) * STEP_S, {}, [])
    (curves,) = points(history).edges
    assert curves.rate == [30] + [None] * (POINTS - 1)
    history.add(1000.0 + POINTS * STEP_S, {}, [])
    assert points(history).edges == []


def test_a_long_sleep_leaves_nothing_of_the_time_before() -> None:
    history = History()
    history.add(1000.0, {}, [edge(30)])
    history.add(1e9, {}, [edge(7)])
    (curves,) = points(history).edges
    assert curves.rate == [None] * (POINTS - 1) + [7]


def test_a_node_is_read_with_the_edges_that_begin_or_end_at_it() -> None:
    history = History()
    edges = [edge(1), edge(2, target="c/in"), edge(3, flow="other")]
    history.add(1000.0, {("f", "b"): cpu(1), ("f", "c"): cpu(1)}, edges)
    answer = points(history, "b")
    assert [each.node for each in answer.nodes] == ["b"]
    assert [each.target for each in answer.edges] == ["b/in"]
    assert len(points(history, "a").edges) == 2


def test_what_is_too_much_for_the_memory_or_for_an_answer_is_counted() -> None:
    history = History()
    edges = [edge(1, target=f"n{number}/in") for number in range(MAX_SERIES + 5)]
    history.add(1000.0, {}, edges)
    answer = points(history)
    assert len(answer.edges) == MAX_ANSWERED
    assert answer.left_out == MAX_SERIES - MAX_ANSWERED + 5


@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0, 1e6, width=32)), min_size=1, max_size=40)
)
def test_a_curve_is_what_a_list_of_all_points_would_show(steps: list[tuple[int, float]]) -> None:
    """The ring forgets neither too much nor too little, whatever pauses there were."""
    history, model, slot = History(), dict[int, float](), 200
    for pause, rate in steps:
        slot += pause
        model[slot] = rate
        history.add(slot * STEP_S, {}, [edge(rate)])
    (curves,) = points(history).edges
    expected = [model.get(each) for each in range(slot - POINTS + 1, slot + 1)]
    assert curves.rate == [None if each is None else float(f"{each:.4g}") for each in expected]


@given(
    st.lists(st.none() | st.floats(1, 1e6, width=32), min_size=1, max_size=POINTS + 30),
    st.integers(-1, POINTS + 9),
)
def test_fewer_points_are_the_largest_of_their_part_and_none_is_lost(
    rates: list[float | None], wanted: int
) -> None:
    history = History()
    for slot, rate in enumerate(rates, start=200):
        history.add(slot * STEP_S, {}, [] if rate is None else [edge(rate)])
    found = history.read("f", None, at=0.0, points=wanted)
    count = wanted if 0 < wanted <= POINTS else POINTS
    assert abs(found.step * count - STEP_S * POINTS) < 1e-6
    kept = [each for each in rates[-POINTS:] if each is not None]
    assert len(found.edges) == bool(kept)
    for curves in found.edges:
        assert len(curves.rate) == count
        assert max(each or 0.0 for each in curves.rate) == float(f"{max(kept):.4g}")


def test_a_robot_has_the_sums_of_its_nodes_and_edges_and_the_longest_latency() -> None:
    history = History()
    edges = [edge(30), edge(0, target="c/in"), edge(5, flow="other")]
    edges[2].latency_p99, edges[2].drop_rate = 0.25, 2.0
    history.add(1000.0, {("f", "a"): cpu(40), ("other", "a"): cpu(20)}, edges)
    whole = history.whole()
    assert len(whole.cpu) == m.ROBOT_POINTS
    assert (whole.cpu[-1], whole.rate[-1], whole.drop_rate[-1]) == (60, 35, 2)
    assert whole.latency_p99[-1] == 0.25
    assert whole.rate[:-1] == [None] * (m.ROBOT_POINTS - 1)
    # Nothing runs: that is no rate of 0.
    for slot in range(1, POINTS // m.ROBOT_POINTS + 1):
        history.add(1000.0 + slot * STEP_S, {}, [])
    assert history.whole().rate[-1] is None


@given(st.lists(st.none() | st.floats(0, 1e9), min_size=1, max_size=200), st.integers(1, 120))
def test_bars_have_a_letter_for_each_part_and_a_space_for_what_is_unknown(
    values: list[float | None], width: int
) -> None:
    line = bars(values, width)
    assert len(line) == width
    assert set(line) <= {*BARS, " "}
    if all(each is None for each in values):
        assert line.strip() == ""


def test_the_largest_of_a_part_is_drawn_so_that_no_peak_vanishes() -> None:
    values = [1.0] * 120
    values[61] = 100.0
    line = bars(values, 60)
    assert line.count(BARS[-1]) == 1
    assert line[30] == BARS[-1]
