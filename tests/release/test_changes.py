"""What a new release changes on a robot, as its manifest says."""

import msgspec

from dorad.release.changes import Changes, changed_nodes
from dorad.release.manifest import NodeContent, parse
from tests.release.samples import FLOW, MACHINE, release

ONE, TWO = NodeContent("1" * 64, python=True), NodeContent("2" * 64, python=False)


def manifest(nodes, files=None, packages=None):
    return parse(release(files, packages, nodes=nodes).content)


def test_only_nodes_that_differ_are_replaced():
    old = manifest({"a": ONE, "b": TWO, "gone": ONE})
    new = manifest({"a": TWO, "b": TWO, "new": ONE})
    found = changed_nodes(old, new, MACHINE)
    assert (found.replaced, found.untouched) == (["a"], ["b"])
    assert (found.added, found.removed) == (["new"], ["gone"])


def test_another_environment_replaces_the_python_nodes():
    old = manifest({"a": ONE, "b": TWO}, packages={"numpy": {"site/numpy.py": b"1"}})
    new = manifest({"a": ONE, "b": TWO}, packages={"numpy": {"site/numpy.py": b"2"}})
    found = changed_nodes(old, new, MACHINE)
    assert (found.replaced, found.untouched) == (["a"], ["b"])
    assert found.size == 1


def test_the_same_environment_in_another_order_replaces_nothing():
    one = {"p": {"site/p.py": b"p"}, "q": {"site/q.py": b"q"}}
    two = dict(reversed(one.items()))
    old, new = (manifest({"a": ONE}, packages=each) for each in (one, two))
    assert changed_nodes(old, new, MACHINE).untouched == ["a"]


def test_files_are_told_apart_by_their_content():
    old = manifest({"a": ONE}, {"dataflow.yml": FLOW, "same": b"1", "changed": b"1", "gone": b"1"})
    new = manifest({"a": ONE}, {"dataflow.yml": FLOW, "same": b"1", "changed": b"22", "new": b"1"})
    found = changed_nodes(old, new, MACHINE)
    assert found.files_changed == ["changed"]
    assert (found.files_added, found.files_removed) == (["new"], ["gone"])
    assert found.size == 2


def test_without_a_release_before_everything_is_added():
    new = manifest({"a": ONE, "b": TWO})
    found = changed_nodes(None, new, MACHINE)
    assert found.added == ["a", "b"]
    assert found.size == sum(len(each) for each in (FLOW, b"print(1)\n"))
    assert not found.empty
    assert changed_nodes(new, new, MACHINE).empty


def test_any_change_makes_it_not_empty():
    names = "added removed replaced packages files_added files_removed files_changed params inputs"
    assert Changes().empty
    assert Changes(untouched=["a"], size=5).empty
    for name in names.split():
        assert not Changes(**{name: ["x"]}).empty


def test_a_manifest_of_the_former_format_calls_no_node_untouched_if_the_dataflow_differs():
    old = manifest({"a": ONE, "b": TWO}, {"dataflow.yml": FLOW, "arm.yml": b"1"})
    new = manifest({"a": ONE, "b": ONE}, {"dataflow.yml": FLOW, "arm.yml": b"2"})
    found = changed_nodes(old, new, MACHINE)
    assert (found.untouched, found.uncompared) == ([], ["a"])
    assert "has no inputs" in found.uncompared_why
    # Of other files it has always known what nodes need.
    old_map, new_map = ({"dataflow.yml": FLOW, "map.png": content} for content in (b"1", b"2"))
    found = changed_nodes(manifest({"a": ONE}, old_map), manifest({"a": ONE}, new_map), MACHINE)
    assert (found.untouched, found.uncompared) == (["a"], [])
    # The format alone replaces no node.
    nodes = {name: with_inputs(node) for name, node in old.nodes.items()}
    later = msgspec.structs.replace(old, format=2, nodes=nodes)
    found = changed_nodes(old, later, MACHINE)
    assert (found.untouched, found.uncompared, found.replaced) == (["a", "b"], [], [])


def with_inputs(node, **inputs):
    return msgspec.structs.replace(node, inputs=inputs)


def test_other_inputs_are_named_from_the_manifests():
    old, new = (
        msgspec.structs.replace(
            manifest({}, {"dataflow.yml": FLOW, "arm.yml": text}),
            format=2,
            nodes={"a": with_inputs(ONE, **a), "b": with_inputs(ONE, x="a/y"),
                   "c": with_inputs(two, t=timer)},
        )
        for text, a, two, timer in (
            (b"1", {"t": "dora/timer/hz/1", "u": "b/u"}, ONE, "dora/timer/hz/5"),
            (b"2", {"t": "dora/timer/hz/2", "v": "b/v"}, TWO, "dora/timer/hz/6"),
        )
    )  # fmt: skip
    found = changed_nodes(old, new, MACHINE)
    assert found.inputs == [
        "a/t: dora/timer/hz/1 → dora/timer/hz/2",
        "a/u: b/u → none",
        "a/v: none → b/v",
        "c/t: dora/timer/hz/5 → dora/timer/hz/6",
    ]
    assert (found.replaced, found.untouched, found.uncompared) == (["c"], ["b"], [])


def test_packages_that_come_go_or_change_are_named_with_their_versions():
    def with_packages(**versions):
        made = manifest({"a": ONE}, packages={name: {f"site/{name}.py": b"1"} for name in versions})
        packages = [msgspec.structs.replace(each, version=versions[each.name])
                    for each in made.packages]  # fmt: skip
        return msgspec.structs.replace(made, packages=packages)

    old = with_packages(gone="1.0", same="2.0", moved="3.0")
    new = with_packages(added="4.0", same="2.0", moved="3.1")
    found = changed_nodes(old, new, MACHINE)
    assert found.packages == ["added 4.0 added", "gone 1.0 removed", "moved 3.0 → 3.1"]
    assert changed_nodes(None, old, MACHINE).packages == [
        "gone 1.0 added", "moved 3.0 added", "same 2.0 added",
    ]  # fmt: skip
    # Of a machine without an environment nothing is known.
    other = msgspec.structs.replace(MACHINE, arch="aarch64")
    assert changed_nodes(old, new, other).packages == []


def test_what_is_there_already_is_not_sent_again():
    old = manifest({"a": ONE}, {"dataflow.yml": FLOW, "x": b"12345"})
    moved = manifest({"a": ONE}, {"dataflow.yml": FLOW, "y": b"12345", "z": b"123"})
    found = changed_nodes(old, moved, MACHINE)
    assert (found.size, found.files_added, found.files_removed) == (3, ["y", "z"], ["x"])
