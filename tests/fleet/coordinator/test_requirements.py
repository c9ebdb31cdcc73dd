"""The requirements of nodes as their `deploy` blocks state them, and the names in them."""

import msgspec
import pytest

from dorad.dataflow.settings import Amounts
from dorad.release.manifest import NodeContent, Place
from dorafleet.coordinator.placement import Candidate, Requirements
from dorafleet.coordinator.requirements import problems_of, requirements_at, requirements_of
from tests.dataflow.reading import read
from tests.fleet.rollout.site import manifest

ARM1 = Candidate("arm1", {"zone": "hall", "arm": "left"})
ARM2 = Candidate("arm2", {"zone": "yard"})


def problems(text: str, *machines: Candidate) -> list[tuple[str, str | None]]:
    """Return the messages and hints of a file's problems with these machines."""
    found = problems_of(read(text), machines or (ARM1, ARM2))
    return [(each.message, each.hint) for each in found]


def places(text: str) -> list[int | None]:
    """Return the lines of a file's problems."""
    return [each.line for each in problems_of(read(text), (ARM1, ARM2))]


NODES = """
deploy: {machine: arm2, labels: {zone: yard}}
nodes:
  - {id: a, path: a.py}
  - id: b
    path: b.py
    deploy:
      labels: {arm: left}
      needs: {cpu: 0.5, memory: 1GB, gpu: 1, devices: [lidar]}
      avoid: {machines: [arm2], nodes: [a, b]}
"""


def test_a_node_has_its_own_block_or_that_of_the_dataflow_and_never_parts_of_both():
    first, second = requirements_of(read(NODES))
    assert (first.id, first.machine, first.labels) == ("a", "arm2", {"zone": "yard"})
    assert (first.needs, first.avoids_machines, first.avoids_nodes) == (Amounts(), set(), set())
    assert (second.id, second.machine, second.labels) == ("b", None, {"arm": "left"})
    assert second.needs == Amounts(0.5, 1 << 30, 1, ("lidar",))
    assert second.avoids_machines == {"arm2"}
    # A list for all nodes of a group names each of them, and no node avoids itself.
    assert second.avoids_nodes == {"a"}


def test_nodes_without_any_block_go_anywhere():
    (only,) = requirements_of(read("nodes: [{id: a, path: a.py}]"))
    assert (only.machine, only.labels, only.needs) == (None, {}, Amounts())


@pytest.mark.parametrize(
    ("deploy", "expected"),
    [
        ("{machine: arm1}", []),
        ("{machine: arm1x}", [("there is no machine `arm1x`", "did you mean `arm1`?")]),
        ("{avoid: {machines: [arm1, arm2]}}", []),
        (
            "{avoid: {machines: [arm1, arm1x]}}",
            [("there is no machine `arm1x`", "did you mean `arm1`?")],
        ),
        ("{avoid: {nodes: [other]}}", []),
        ("{avoid: {nodes: [othr]}}", [("there is no node `othr`", "did you mean `other`?")]),
        ("{avoid: {nodes: [n]}}", [("a node cannot avoid itself", "remove it")]),
        ("{labels: {zone: hall}}", []),
        ("{labels: {zone: hall, arm: left}}", []),
        (
            "{labels: {zone: hal}}",
            [("no machine has the label `zone` with `hal`", "did you mean `hall`?")],
        ),
        (
            "{labels: {zone: roof}}",
            [("no machine has the label `zone` with `roof`", "there is `hall`, `yard`")],
        ),
        ("{labels: {zon: hall}}", [("no machine has a label `zon`", "did you mean `zone`?")]),
        # Each pair is somewhere, and together they are nowhere.
        (
            "{labels: {zone: yard, arm: left}}",
            [("each of these labels is on some machine, but no machine has all of them", None)],
        ),
        # One wrong pair explains enough.
        (
            "{labels: {zone: yard, arm: lef}}",
            [("no machine has the label `arm` with `lef`", "did you mean `left`?")],
        ),
    ],
)
def test_a_name_that_no_machine_or_node_has_is_a_problem_with_the_nearest_one(deploy, expected):
    node = f"nodes: [{{id: n, path: n.py, deploy: {deploy}}}, {{id: other, path: o.py}}]"
    assert problems(node) == expected


def test_the_block_of_the_dataflow_counts_only_if_a_node_has_no_block_of_its_own():
    block = "deploy: {machine: nowhere}\n"
    own = "nodes: [{id: n, path: n.py, deploy: {machine: arm1}}]"
    assert problems(block + own) == []
    both = "nodes: [{id: n, path: n.py, deploy: {machine: arm1}}, {id: o, path: o.py}]"
    assert [message for message, _ in problems(block + both)] == ["there is no machine `nowhere`"]


def test_problems_come_in_the_order_of_the_file_each_at_its_line():
    text = """
nodes:
  - id: a
    path: a.py
    deploy:
      avoid: {machines: [arm1, gone]}
      machine: lost
  - id: b
    path: b.py
    deploy:
      labels:
        zone: hall
        colour: red
deploy:
  machine: unused
"""
    found = read(text)
    assert [each.message for each in problems_of(found, (ARM1, ARM2))] == [
        "there is no machine `gone`",
        "there is no machine `lost`",
        "no machine has a label `colour`",
    ]
    assert places(text) == [6, 7, 13]


def test_many_values_of_a_label_are_not_all_listed():
    fleet = [Candidate(f"m{number}", {"zone": f"z{number}"}) for number in range(7)]
    text = "nodes: [{id: n, path: n.py, deploy: {labels: {zone: elsewhere}}}]"
    ((_, hint),) = problems(text, *fleet)
    assert hint == "there is `z0`, `z1`, `z2`, `z3`, `z4`, …"
    ((_, hint),) = problems(text, *fleet[:5])
    assert hint == "there is `z0`, `z1`, `z2`, `z3`, `z4`"


def test_a_release_requires_of_machines_what_its_file_does():
    """Whatever the manifest leaves out, because it is not stated."""
    dataflow = read(NODES)
    for each in requirements_of(dataflow):
        place = Place(
            machine=each.machine or "",
            labels=dict(each.labels),
            cpu=each.needs.cpu,
            memory=each.needs.memory,
            gpu=each.needs.gpu,
            devices=list(each.needs.devices or ()),
            avoid_machines=sorted(each.avoids_machines),
            avoid_nodes=sorted(each.avoids_nodes),
        )
        content = NodeContent(digest="0" * 64, python=False, place=place)
        release = msgspec.structs.replace(manifest(1), nodes={each.id: content})
        assert requirements_at(release.places) == (each,)
    plain = NodeContent(digest="0" * 64, python=False)
    anywhere = msgspec.structs.replace(manifest(1), nodes={"a": plain})
    assert requirements_at(anywhere.places) == (Requirements("a"),)
