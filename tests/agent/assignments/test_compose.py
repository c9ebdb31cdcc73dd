"""The daemon's dataflow that is made from releases: what each node runs from, and with what."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from dorad.agent.assignments import compose
from dorad.agent.assignments.files import Bundle
from dorad.agent.assignments.model import Applied, Revision
from dorad.control.errors import ControlError
from dorad.control.messages.releases import HealthRules
from tests.agent.assignments.orders import UUID, A, B, C, group

RECORDINGS = Path("/var/recordings/flow")
CELL = group(listen=["tls/0.0.0.0:5456"], connect=["tls/r2:5456"], connect_to=["r2"])


def bundle(name, *nodes, environments=None, **more):
    folder = Path("/releases") / name[:1]
    return Bundle(name, 1, folder, {"nodes": [*nodes], **more}, environments or {})


def node(name, **more):
    return {"id": name, "path": f"{name}.py", "outputs": ["out"], **more}


def composed(first, *others, nodes=None, params=None, **more):
    """Return the order for a revision of the first release; by default all nodes are from it."""
    bundles = {each.name: each for each in (first, *others)}
    runs = dict.fromkeys(compose.node_ids(first.descriptor), first.name) | (nodes or {})
    applied = Applied(Revision(first.name, params or {}), runs)
    return compose.content_of(
        applied, UUID, "r1", Path("/flow.yml"), bundles.__getitem__, RECORDINGS, **more
    )


def nodes_of(content):
    return {each["id"]: each for each in content.descriptor["nodes"]}


def test_a_machine_of_a_group_runs_its_own_nodes_and_reaches_the_others():
    release = bundle(B, node("camera"), node("arm"), node("nowhere"))
    applied = compose.applied_after(None, Revision(B, group=CELL), release, {})
    assert applied.nodes == {"camera": B}
    rules = HealthRules(
        rates={"camera/image": 5.0, "arm/angle": 9.0, "other/x": 1.0}, quiet=["arm/x", "camera/x"]
    )
    content = compose.content_of(
        applied, UUID, "r1", Path("/flow.yml"), {B: release}.__getitem__, RECORDINGS, rules
    )
    assert content.uuid == CELL.uuid
    assert [*nodes_of(content)] == ["camera", "arm", "nowhere"]
    wanted = replace(
        CELL.share, min_rates={"camera/image": 5.0, "other/x": 1.0, "camera/x": 0.0}, tls=None
    )
    assert content.share == wanted
    assert (content.share.listen, content.share.connect) == (CELL.share.listen, CELL.share.connect)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (group(machine="r2"), "its share is that of r2, this robot is r1"),
        (group(placement={"camera": "r2"}), "none of its nodes is placed on r1"),
        (group("cell1"), "'cell1' is not a UUID"),
    ],
)
def test_a_group_of_which_this_machine_is_no_part_is_refused(given, text):
    release = bundle(B, node("camera"), node("arm"))
    applied = compose.applied_after(None, Revision(B, group=given), release, {})
    with pytest.raises(ControlError, match=text):
        compose.content_of(
            applied, UUID, "r1", Path("/flow.yml"), {B: release}.__getitem__, RECORDINGS
        )


def test_only_nodes_of_this_machine_are_replaced_and_those_that_come_here():
    release = bundle(B, node("camera"), node("arm"), node("tool"))

    def content(**placement):
        share = group(placement=placement)
        applied = Applied(
            Revision(B, group=share),
            dict.fromkeys(compose.nodes_here(release.descriptor, share), B),
        )
        return compose.content_of(
            applied, UUID, "r1", Path("/f.yml"), {B: release}.__getitem__, RECORDINGS
        )

    before = content(camera="r1", arm="r2", tool="r1")
    assert compose.replaced(before, before) == []
    assert compose.replaced(None, before) == ["camera", "tool"]
    assert compose.replaced(before, content(camera="r1", arm="r1", tool="r2")) == ["arm"]


def test_a_node_keeps_its_files_while_it_does_not_differ_from_the_new_release():
    new = bundle(C, node("a"), node("b"), node("new"))
    before = Applied(Revision(B), {"a": A, "b": B, "removed": B})
    after = compose.applied_after(before, Revision(C), new, {A: {"b"}, B: {"b", "removed"}})
    assert after == Applied(Revision(C), {"a": A, "b": C, "new": C})
    first = compose.applied_after(None, Revision(C), new, {})
    assert first.nodes == {"a": C, "b": C, "new": C}


def test_each_node_runs_in_the_folder_of_its_release_and_its_environment():
    new = bundle(
        B,
        node("a"),
        node("b", deploy={"working_dir": "sub", "user": "own"}),
        deploy={"user": "all"},
    )
    old = bundle(A, node("a"), environments={"a": Path("/releases/a/env")})
    content = composed(new, old, nodes={"a": A})
    found = nodes_of(content)
    assert found["a"]["deploy"] == {"user": "all", "working_dir": "/releases/a"}
    assert found["a"]["env"] == {"VIRTUAL_ENV": "/releases/a/env"}
    assert found["b"]["deploy"] == {"user": "own", "working_dir": "/releases/b/sub"}
    assert found["b"]["env"] == {}
    assert "deploy" not in content.descriptor
    assert (content.uuid, content.path) == (UUID, "/flow.yml")
    assert content.share.machine == "r1"
    assert content.share.placement == {"a": "r1", "b": "r1"}
    # The release itself, which others still use, stays as it was.
    assert new.descriptor["deploy"] == {"user": "all"}
    assert "deploy" not in new.descriptor["nodes"][0]


def test_variables_of_a_node_come_before_those_of_the_dataflow_and_of_its_environment():
    release = bundle(
        A,
        node("a", env={"X": "node"}),
        node("b"),
        env={"X": "flow", "Y": "flow", "VIRTUAL_ENV": "/own"},
        environments={"a": Path("/env"), "b": Path("/env")},
    )
    found = nodes_of(composed(release))
    assert found["a"]["env"] == {"X": "node", "Y": "flow", "VIRTUAL_ENV": "/own"}
    assert found["b"]["env"] == {"X": "flow", "Y": "flow", "VIRTUAL_ENV": "/own"}
    assert "env" not in composed(release).descriptor


@pytest.mark.parametrize(
    ("named", "folder"),
    [
        (None, "/var/recordings/flow"),
        ("recordings", "/var/recordings/flow"),
        ("box", "/var/recordings/flow/box"),
        ("/data", "/data"),
    ],
)
def test_recordings_go_to_the_folder_of_the_dataflow_and_not_into_a_release(named, folder):
    block = {"keep": "10 min"} | ({} if named is None else {"folder": named})
    release = bundle(A, node("a"), record=block, deploy={"user": "all"})
    descriptor = composed(release).descriptor
    assert descriptor["record"] == {"keep": "10 min", "folder": folder}
    # The recorder has no entry in `nodes`: its folder is absolute.
    assert descriptor["deploy"] == {"working_dir": "/"}


def test_without_a_record_block_there_is_no_folder_for_recordings():
    descriptor = composed(bundle(A, node("a"))).descriptor
    assert "record" not in descriptor
    assert "deploy" not in descriptor


def test_the_rates_of_an_order_stay_limits_and_quiet_outputs_have_none():
    release = bundle(A, node("a"))
    assert composed(release).share.min_rates == {}
    rules = HealthRules(rates={"a/out": 10.0, "a/q": 3.0}, quiet=["a/q", "a/r"])
    found = composed(release, rules=rules).share.min_rates
    assert found == {"a/out": 10.0, "a/q": 0.0, "a/r": 0.0}


def test_parameters_of_a_revision_replace_the_defaults_of_nodes():
    declared = {"rate": {"default": 1, "type": "int"}, "name": "x"}
    release = bundle(A, node("a", params=declared), node("b"))
    params = {"a/rate": 5, "a/name": "y", "a/more": {"k": 1}, "b/deep/er": 2}
    found = nodes_of(composed(release, params=params))
    assert found["a"]["params"] == {
        "rate": {"default": 5, "type": "int"},
        "name": "y",
        # A table would be taken for a declaration.
        "more": {"default": {"k": 1}},
    }
    assert found["b"]["params"] == {"deep/er": 2}
    assert release.descriptor["nodes"][0]["params"] == declared


@pytest.mark.parametrize("name", ["c/rate", "a", "a/", "/rate", ""])
def test_a_parameter_of_no_node_is_refused(name):
    with pytest.raises(ControlError, match="there is no node for the parameter") as caught:
        composed(bundle(A, node("a")), params={name: 1})
    assert caught.value.code == "refused"


def test_nodes_that_are_new_or_differ_in_more_than_their_inputs_are_replaced():
    before = composed(
        bundle(A, node("same"), node("wired", inputs={"x": "same/out"}), node("changed"))
    )
    release = bundle(
        A, node("same"), node("wired"), node("changed", args="-v"), node("new", path="n.py")
    )
    after = composed(release)
    assert compose.replaced(before, after) == ["changed", "new"]
    assert compose.replaced(None, after) == ["same", "wired", "changed", "new"]
    assert compose.replaced(after, after) == []


def test_the_sources_of_a_node_are_the_nodes_that_feed_it_and_no_timers():
    content = composed(
        bundle(
            A,
            node("a", inputs={"tick": "dora/timer/millis/100"}),
            node("b", inputs={"x": "a/out", "y": "a/out"}),
            node("c", inputs={"x": "a/out", "y": "b/out"}),
        )
    )
    assert compose.sources(content) == {"a": set(), "b": {"a"}, "c": {"a", "b"}}


def test_a_dataflow_that_is_not_valid_here_is_refused_with_its_problems():
    content = composed(bundle(A, node("a", inputs={"x": "nowhere/out"})))
    for refused in (compose.sources, compose.check):
        with pytest.raises(ControlError, match=r"its dataflow is not valid here: .*nowhere") as hit:
            refused(content)
        assert hit.value.code == "refused"
    many = [node(f"n{number}", inputs={"x": f"no{number}/out"}) for number in range(7)]
    with pytest.raises(ControlError) as caught:
        compose.check(composed(bundle(A, *many)))
    assert "no4" in str(caught.value)
    assert "no5" not in str(caught.value)
    compose.check(composed(bundle(A, node("a"))))
