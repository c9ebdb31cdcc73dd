"""The extension table without I/O: owners of values, and reports of dropped values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node.exttable import MAX_DROPPED, MAX_ENTRIES, MAX_VALUE, ExtensionTable, TableError


@pytest.fixture
def table() -> ExtensionTable:
    return ExtensionTable()


def test_every_node_loads_what_another_has_stored(table: ExtensionTable) -> None:
    table.store("a", "n", "k", b"1")
    assert table.load("b", "n", "k") == b"1"
    assert table.load("b", "n", "k") == b"1"
    assert table.load("b", "n", "other") is None
    assert table.load("b", "other", "k") is None


def test_only_the_owner_overwrites_a_value_and_no_notice_is_sent(table: ExtensionTable) -> None:
    table.store("a", "n", "k", b"1")
    table.load("b", "n", "k")
    table.store("a", "n", "k", b"2")
    with pytest.raises(TableError, match=r"n/k is owned by node 'a'"):
        table.store("b", "n", "k", b"3")
    assert table.load("b", "n", "k") == b"2"
    assert table.drain("a", "n") == table.drain("b", "n") == []


def test_nodes_that_stored_or_loaded_a_key_are_notified_of_its_end_once(
    table: ExtensionTable,
) -> None:
    table.store("a", "n", "k", b"1")
    table.load("b", "n", "k")
    table.drop("n", "k")
    table.drop("n", "k")
    assert [table.drain(node, "n") for node in "abc"] == [["k"], ["k"], []]
    assert [table.drain(node, "n") for node in "abc"] == [[], [], []]


def test_loading_with_remove_notifies_the_loader_too(table: ExtensionTable) -> None:
    table.store("a", "n", "k", b"1")
    assert table.load("b", "n", "k", remove=True) == b"1"
    assert table.load("b", "n", "k", remove=True) is None
    assert table.drain("a", "n") == table.drain("b", "n") == ["k"]


def test_notices_are_separated_by_namespace(table: ExtensionTable) -> None:
    for namespace in ("n", "m"):
        table.store("a", namespace, "k", b"1")
        table.drop(namespace, "k")
    assert table.drain("a", "other") == []
    assert table.drain("a", "n") == ["k"]
    assert table.drain("a", "m") == ["k"]


def test_a_key_stored_again_is_a_new_one(table: ExtensionTable) -> None:
    table.store("a", "n", "k", b"1")
    table.load("b", "n", "k")
    table.drop("n", "k")
    table.store("c", "n", "k", b"2")
    table.drop("n", "k")
    assert [table.drain(node, "n") for node in "abc"] == [["k"], ["k"], ["k"]]


def test_the_values_of_a_node_end_with_it(table: ExtensionTable) -> None:
    table.store("a", "n", "mine", b"1")
    table.store("b", "n", "other", b"2")
    table.load("b", "n", "mine")
    table.load("a", "n", "other")
    table.leave("a")
    assert table.load("b", "n", "mine") is None
    assert table.load("b", "n", "other") == b"2"
    assert table.drain("b", "n") == ["mine"]
    table.drop("n", "other")
    assert table.drain("a", "n") == []


def test_a_full_table_accepts_only_replacements(table: ExtensionTable) -> None:
    for number in range(MAX_ENTRIES):
        table.store("a", "n", str(number), b"")
    with pytest.raises(TableError, match="full with 8192 entries"):
        table.store("b", "m", "k", b"")
    table.store("a", "n", "0", b"new")
    table.drop("n", "1")
    table.store("b", "m", "k", b"")
    assert len(table) == MAX_ENTRIES


def test_the_newest_notices_are_kept(table: ExtensionTable) -> None:
    for number in range(MAX_DROPPED + 5):
        table.store("a", "n", str(number), b"")
        table.drop("n", str(number))
    drained = table.drain("a", "n")
    assert (len(drained), drained[0], drained[-1]) == (MAX_DROPPED, "5", str(MAX_DROPPED + 4))


def test_a_value_above_the_limit_is_refused(table: ExtensionTable) -> None:
    table.store("a", "n", "k", bytes(MAX_VALUE))
    with pytest.raises(TableError, match="bytes are more than"):
        table.store("a", "n", "k", bytes(MAX_VALUE + 1))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "load", "remove", "drop", "drain", "leave"]),
        st.sampled_from("abc"),
        st.sampled_from("kl"),
    )
)


@given(STEPS)
def test_a_dropped_key_is_reported_to_exactly_the_nodes_that_used_it(
    steps: list[tuple[str, str, str]],
) -> None:
    table = ExtensionTable()
    owners: dict[str, str] = {}
    touched: dict[str, set[str]] = {}
    due: dict[str, list[str]] = {node: [] for node in "abc"}

    def end(key: str) -> None:
        if owners.pop(key, None):
            for node in touched.pop(key):
                due[node].append(key)

    for what, node, key in steps:
        if what == "store" and owners.get(key, node) == node:
            table.store(node, "n", key, node.encode())
            owners[key] = node
            touched.setdefault(key, set()).add(node)
        elif what in ("load", "remove"):
            owner = owners.get(key)
            found = table.load(node, "n", key, remove=what == "remove")
            assert found == (owner.encode() if owner else None)
            if owner:
                touched[key].add(node)
            if what == "remove":
                end(key)
        elif what == "drop":
            table.drop("n", key)
            end(key)
        elif what == "drain":
            assert sorted(table.drain(node, "n")) == sorted(due[node])
            due[node] = []
        elif what == "leave":
            table.leave(node)
            for owned in [k for k, owner in owners.items() if owner == node]:
                end(owned)
            for nodes in touched.values():
                nodes.discard(node)
            due[node] = []
