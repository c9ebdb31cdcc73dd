"""Rows of a drawing: cycles are broken, sources stand above, crossings go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.layers import Link, crossings, ordered, ranks, without_cycles

KEYS = [chr(ord("a") + index) for index in range(9)]

links = st.lists(st.builds(Link, st.sampled_from(KEYS), st.sampled_from(KEYS)), max_size=24)


def test_a_chain_keeps_its_direction():
    chain = [Link("a", "b"), Link("b", "c")]
    assert without_cycles(["a", "b", "c"], chain) == (set(chain), set())


def test_the_link_that_closes_a_cycle_is_reversed():
    forward, backward = without_cycles(["a", "b"], [Link("a", "b"), Link("b", "a")])
    assert (forward, backward) == ({Link("a", "b")}, {Link("b", "a")})


def test_a_cycle_fed_from_outside_is_entered_where_it_is_fed():
    given_links = [Link("b", "c"), Link("c", "b"), Link("source", "c")]
    _, backward = without_cycles(["b", "c", "source"], given_links)
    assert backward == {Link("b", "c")}


@given(links)
def test_the_remaining_graph_can_be_ranked_with_every_source_above(given_links):
    forward, backward = without_cycles(KEYS, given_links)
    downward = forward | {Link(link.target, link.source) for link in backward}
    rank = ranks(KEYS, downward, step=2)
    assert set(rank) == set(KEYS)
    assert all(rank[link.source] + 2 <= rank[link.target] for link in downward)
    assert min(rank.values()) == 0


def test_a_source_stands_just_above_its_nearest_target():
    rank = ranks(["a", "b", "c", "timer"], [Link("a", "b"), Link("b", "c"), Link("timer", "c")])
    assert rank["timer"] == rank["c"] - 1


def test_crossings_are_counted():
    below = {"a": ["d"], "b": ["c"], "c": [], "d": []}
    assert crossings([["a", "b"], ["c", "d"]], below) == 1


def test_crossed_rows_are_uncrossed():
    rows = ordered([["a", "b"], ["c", "d"]], [Link("a", "d"), Link("b", "c")])
    assert crossings(rows, {"a": ["d"], "b": ["c"], "c": [], "d": []}) == 0


@pytest.mark.parametrize("width", [3, 6])
def test_a_ladder_given_in_reverse_is_uncrossed(width):
    rows = [[f"{row}{i}" for i in range(width)][:: 1 if row % 2 else -1] for row in range(4)]
    given_links = [Link(f"{row}{i}", f"{row + 1}{i}") for row in range(3) for i in range(width)]
    below = {key: [r.target for r in given_links if r.source == key] for row in rows for key in row}
    assert crossings(ordered(rows, given_links), below) == 0


@given(st.data())
def test_ordering_keeps_every_row_and_never_adds_crossings(data):
    upper, lower = KEYS[:4], KEYS[4:]
    pairs = st.builds(Link, st.sampled_from(upper), st.sampled_from(lower))
    given_links = data.draw(st.lists(pairs, unique=True, max_size=14))
    below = {key: [r.target for r in given_links if r.source == key] for key in KEYS}
    rows = ordered([upper, lower], given_links)
    assert [sorted(row) for row in rows] == [upper, lower]
    assert crossings(rows, below) <= crossings([upper, lower], below)
