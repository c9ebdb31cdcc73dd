"""Positions of a drawing: nothing lies over anything else, edges end at their boxes."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.dataflow.columns import Size, settle
from dorad.dataflow.layout import Edge, layout

KEYS = "abcdefgh"

sizes = st.builds(Size, st.floats(60, 240), st.floats(30, 60))
edges = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)), unique=True, max_size=18
).flatmap(
    lambda pairs: st.tuples(
        *(
            st.builds(
                Edge,
                st.just(source),
                st.just(target),
                st.one_of(
                    st.just(Size(0, 0)), st.builds(Size, st.floats(20, 200), st.floats(17, 60))
                ),
            )
            for source, target in pairs
        )
    )
)
drawings = st.tuples(st.fixed_dictionaries(dict.fromkeys(KEYS, sizes)), edges)


half = settings(max_examples=50)
"""Five properties of the same drawings need no more."""


def overlap(a, b):
    """Return True if two (centre, size) rectangles overlap by more than rounding."""
    (one, one_size), (two, two_size) = a, b
    return (
        abs(one.x - two.x) < (one_size.width + two_size.width) / 2 - 0.01
        and abs(one.y - two.y) < (one_size.height + two_size.height) / 2 - 0.01
    )


@pytest.mark.long
@half
@given(drawings)
def test_boxes_and_labels_never_overlap(drawing):
    boxes, given_edges = drawing
    placed = layout(boxes, given_edges)
    rectangles = [(placed.centres[key], size) for key, size in boxes.items()]
    rectangles += [
        (route.label, edge.label)
        for edge, route in zip(given_edges, placed.routes, strict=True)
        if edge.label.width
    ]
    assert not any(overlap(a, b) for a, b in combinations(rectangles, 2))


@half
@given(drawings)
def test_everything_lies_within_the_drawing(drawing):
    boxes, given_edges = drawing
    placed = layout(boxes, given_edges)
    for key, size in boxes.items():
        centre = placed.centres[key]
        assert centre.x - size.width / 2 >= -0.01
        assert centre.x + size.width / 2 <= placed.width + 0.01
        assert centre.y - size.height / 2 >= -0.01
        assert centre.y + size.height / 2 <= placed.height + 0.01
    for route in placed.routes:
        assert all(-0.01 <= point.y <= placed.height + 0.01 for point in route.points)


@half
@given(drawings)
def test_every_edge_runs_from_the_border_of_its_source_to_that_of_its_target(drawing):
    boxes, given_edges = drawing
    placed = layout(boxes, given_edges)
    for edge, route in zip(given_edges, placed.routes, strict=True):
        for key, point in ((edge.source, route.points[0]), (edge.target, route.points[-1])):
            centre, size = placed.centres[key], boxes[key]
            assert abs(point.x - centre.x) <= size.width / 2 + 0.01
            assert abs(point.y - centre.y) <= size.height / 2 + 0.01


@half
@given(drawings)
def test_edges_run_down_unless_they_close_a_cycle(drawing):
    placed = layout(*drawing)
    for route in placed.routes:
        ys = [round(point.y, 6) for point in route.points]
        assert ys == sorted(ys, reverse=route.backward)


@half
@given(drawings)
def test_an_edge_passes_no_box_but_its_own(drawing):
    boxes, given_edges = drawing
    placed = layout(boxes, given_edges)
    for edge, route in zip(given_edges, placed.routes, strict=True):
        for key in set(KEYS) - {edge.source, edge.target}:
            centre, size = placed.centres[key], boxes[key]
            for a, b in pairwise(route.points):
                beside = max(a.y, b.y) <= centre.y - size.height / 2 + 0.01
                beside |= min(a.y, b.y) >= centre.y + size.height / 2 - 0.01
                assert beside or min(abs(a.x - centre.x), abs(b.x - centre.x)) > size.width / 2


def test_a_chain_is_one_straight_line():
    box = Size(100, 40)
    chain = [Edge("a", "b", Size(50, 20)), Edge("b", "c", Size(90, 20))]
    placed = layout({"a": box, "b": box, "c": box}, chain)
    xs = {round(point.x, 3) for route in placed.routes for point in route.points}
    assert len(xs) == 1


def test_nothing_has_no_size():
    placed = layout({}, [])
    assert (placed.width, placed.height) == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([(0.0, 1.0), (50.0, 1.0)], [0.0, 50.0]),
        ([(0.0, 1.0), (0.0, 1.0)], [-5.0, 5.0]),
        ([(0.0, 9.0), (0.0, 1.0)], [-1.0, 9.0]),
        ([(10.0, 1.0), (0.0, 1.0)], [0.0, 10.0]),
    ],
)
def test_positions_settle_nearest_to_the_wanted_ones(wanted, expected):
    assert settle(wanted, [10.0]) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.1, 10)), min_size=1, max_size=8),
    st.lists(st.floats(1, 100), min_size=7, max_size=7),
)
def test_settled_positions_keep_their_distances(wanted, gaps):
    positions = settle(wanted, gaps)
    for (left, right), gap in zip(pairwise(positions), gaps, strict=False):
        assert right - left >= gap - 1e-6


COUNT = 3000
SHAPES = {
    "a chain": lambda i: [i - 1] if i else [],
    "a source of all": lambda i: [0] if i else [],
    "a sink of all": lambda i: range(COUNT - 1) if i == COUNT - 1 else [],
    "two rows": lambda i: {(i * 7) % 1500, (i * 13 + 5) % 1500} if i >= 1500 else [],
    "edges over many rows": lambda i: {(i * 7 + 1) % COUNT, (i * 13 + 5) % COUNT} if i else [],
    "everything to everything": lambda i: range(60) if i < 60 else [],
    "rings": lambda i: [(i // 10) * 10 + (i + 1) % 10],
}


@pytest.mark.long
@pytest.mark.timeout(60)
@pytest.mark.parametrize("shape", SHAPES)
def test_thousands_of_boxes_have_a_place_within_seconds(shape):
    boxes = {str(i): Size(100, 40) for i in range(COUNT)}
    found = [
        Edge(str(source), str(i), Size(40, 17)) for i in range(COUNT) for source in SHAPES[shape](i)
    ]
    placed = layout(boxes, found)
    assert placed.centres.keys() == boxes.keys()
    assert len(set(placed.centres.values())) == COUNT
    assert len(placed.routes) == len(found)
    for edge, route in zip(found, placed.routes, strict=True):
        if edge.source == edge.target:
            continue
        for key, end in ((edge.source, route.points[0]), (edge.target, route.points[-1])):
            assert abs(end.x - placed.centres[key].x) <= 50
            assert abs(end.y - placed.centres[key].y) == pytest.approx(20)


@pytest.mark.long
def test_a_large_drawing_overlaps_no_boxes():
    boxes = {str(i): Size(60 + i % 7 * 10, 30 + i % 3 * 10) for i in range(COUNT)}
    found = [Edge(str(i), str((i * 7 + 1) % COUNT), Size(0, 0)) for i in range(COUNT)]
    placed = layout(boxes, found)
    rows = {}
    for key, centre in placed.centres.items():
        rows.setdefault(centre.y, []).append((centre.x, boxes[key].width))
        assert 0 <= centre.x <= placed.width
        assert 0 <= centre.y <= placed.height
    for row in rows.values():
        row.sort()
        for (x, width), (other, other_width) in pairwise(row):
            assert other - x >= (width + other_width) / 2
