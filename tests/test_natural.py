"""Names with numbers are in the order of their numbers, everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dorad.control.alertbook import AlertBook
from dorad.control.messages import Finding, Top, TopWatch
from dorad.control.topparts import reduction, sort_edges, sort_nodes
from dorad.natural import natural, natural_item
from dorafleet.console.model.topology import worst_first
from dorafleet.console.view import tables
from tests.console.fakefleet import edge, node

ROBOTS = ["arm1", "arm2", "arm10"]


def test_numbers_count_as_numbers() -> None:
    assert sorted(["arm10", "arm2", "arm1", "a"], key=natural) == ["a", *ROBOTS]
    assert sorted({"arm10": 1, "arm2": 2}.items(), key=natural_item) == [("arm2", 2), ("arm10", 1)]


@given(st.lists(st.text(alphabet="a0129/-\u0663", max_size=12)))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert sorted(names, key=natural) == sorted(sorted(names), key=natural)
    assert len({natural(name) for name in names}) == len(set(names))


def test_the_top_of_a_fleet_is_filtered_by_the_name_in_its_heading() -> None:
    top = Top(
        at=0.0,
        window=5.0,
        nodes=[node(name, "camera") for name in ROBOTS],
        edges=[edge(name, "camera/image", "arm/image") for name in ROBOTS],
    )
    part = reduction(TopWatch(filter="robot=arm2"))(top)
    assert [each.machine for each in (*part.top.nodes, *part.top.edges)] == ["arm2", "arm2"]
    for table in (tables.NODES, tables.EDGES):
        assert [each.key for each in table if each.title == "ROBOT"] == ["robot"]


def test_tables_and_alerts_have_that_order() -> None:
    nodes = [node(name, "camera") for name in sorted(ROBOTS)]
    assert [each.machine for each in sort_nodes(nodes, "name")] == ROBOTS
    # The dataflow of a release is another one on each robot, with one name.
    edges = [
        edge(name, "camera/image", "arm/image", dataflow=name[::-1], dataflow_name="pick")
        for name in sorted(ROBOTS)
    ]
    assert [each.machine for each in sort_edges(edges, "name")] == ROBOTS
    # Under a graph, too, however their figures change: only what drops moves a row.
    for number, each in enumerate(edges):
        each.latency, each.drop_rate = 1.0 / (number + 1), 0.1 * (number % 3)
    assert [each.machine for each in worst_first(edges)] == ROBOTS
    edges[0].drop_rate = 2.0
    assert worst_first(edges)[0] is edges[0]
    book = AlertBook()
    finding = Finding(cause="c", subject="s", text="t", severity="warn", since=0.0, event=True)
    for _ in range(2):
        book.observe(0.0, {name: [finding] for name in sorted(ROBOTS)})
    assert [each.robots for each in book.alerts()] == [[name] for name in ROBOTS]
    more = {f"arm{number}": [finding] for number in range(12)}
    for _ in range(2):
        book.observe(1.0, more)
    assert book.alerts()[0].robots == list(more)
