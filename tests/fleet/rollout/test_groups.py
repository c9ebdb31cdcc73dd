"""Which machines run a release together, and which node goes where: decisions without a fleet."""

from ipaddress import ip_address
from types import SimpleNamespace

import msgspec
import pytest

from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.releases import Group
from dorad.release.manifest import Place
from dorafleet.coordinator import groups as module
from dorafleet.coordinator.groups import MAX_MACHINES, Groups, units_for
from dorafleet.coordinator.placement import Candidate as Machine
from dorafleet.coordinator.placement import Requirements
from dorafleet.inventory.model import Machine as Known
from dorafleet.rollout.plan import Candidate

from .site import manifest

CELLS = "each:cell"
RUN, OTHER_RUN = "1" * 32, "2" * 32
LABELS = {
    "a1": {"cell": "a", "role": "arm"},
    "a2": {"cell": "a", "role": "cam"},
    "b1": {"cell": "b", "role": "arm"},
    "b2": {"cell": "b", "role": "cam"},
    "spare": {"role": "cam"},
}
PLACES = {"camera": Place(labels={"role": "cam"}), "grip": Place(labels={"role": "arm"})}


def release(**places):
    found = manifest(1)
    wanted = PLACES | places
    nodes = {name: msgspec.structs.replace(node, place=wanted[name])
             for name, node in found.nodes.items()}  # fmt: skip
    return msgspec.structs.replace(found, format=2, nodes=nodes)


def robots(*ids, **before):
    """Return robots; `before` are the groups in which some run the release now."""
    return [
        Candidate(each, LABELS.get(each, {}), before_group=before.get(each),
                  reachable=not each.startswith("off"))
        for each in ids
    ]  # fmt: skip


def group(machine, placement, instance="a", run=RUN, port=None):
    listen = [] if port is None else [f"tls/0.0.0.0:{port}"]
    return Group(instance=instance, uuid=run,
                 share=Share(machine=machine, placement=placement, listen=listen))  # fmt: skip


def groups(*others, used=(), labels=LABELS, refused=(), trouble=""):
    """Return what places nodes, in a fleet where nodes of `others` run already."""
    known = {
        id_: Known(id_, f"10.0.0.{number}", zenoh_addr=ip_address(f"10.0.0.{number}"))
        for number, id_ in enumerate(labels, start=1)
    }
    candidates = [
        Machine(id_, its, trouble=trouble, refused=dict(refused)) for id_, its in labels.items()
    ]
    planner = SimpleNamespace(
        candidates=lambda name, places: candidates if name == "pick" and set(places) == set(PLACES)
        else [],
        others=lambda name: list(others) if name == "pick" else [],
        peer=None,
    )  # fmt: skip
    fleet = SimpleNamespace(ports_used=lambda name: set(used) if name == "pick" else set())
    return Groups(fleet, SimpleNamespace(machines=known), planner)


def made(chosen, *, scope=CELLS, of=None, manifest=None, fleet=None, given_up=()):
    everyone = chosen if fleet is None else fleet
    return (of or groups()).make(scope, manifest or release(), chosen, everyone, given_up)


def refusal(*arguments, **keys):
    with pytest.raises(ControlError) as caught:
        made(*arguments, **keys)
    assert caught.value.code == "refused"
    return f"{caught.value}"


# -- instances


def test_an_instance_has_the_machines_with_one_value_of_the_label():
    chosen = robots("b1", "a1", "spare", "a2")
    assert units_for("each", "pick", chosen) == {}
    found = units_for(CELLS, "pick", chosen)
    assert {name: [each.id for each in unit] for name, unit in found.items()} == {
        "b": ["b1"],
        "a": ["a1", "a2"],
    }
    assert units_for("one", "pick", chosen) == {"pick": chosen}


def test_a_label_that_no_robot_has_makes_no_instance():
    for chosen in ([], robots("spare"), [Candidate("x", {"cell": ""})]):
        with pytest.raises(ControlError, match="no robot has a label `cell`") as caught:
            units_for(CELLS, "pick", chosen)
        assert "`dorafleet labels ROBOT`" in str(caught.value)


def test_an_instance_has_a_bounded_number_of_machines():
    many = [Candidate(f"r{number}", {"cell": "a"}) for number in range(MAX_MACHINES + 1)]
    assert len(units_for(CELLS, "pick", many[1:])["a"]) == MAX_MACHINES
    with pytest.raises(ControlError, match=f"instance `a` has {MAX_MACHINES + 1} machines, more"):
        units_for(CELLS, "pick", many)


# -- where nodes go


def test_each_instance_has_a_run_of_its_own_and_links_between_its_machines():
    found = made(robots("a1", "a2", "b1", "b2", "spare"))
    assert {id_: each.instance for id_, each in found.items()} == {
        "a1": "a", "a2": "a", "b1": "b", "b2": "b",
    }  # fmt: skip
    assert found["a1"].uuid == found["a2"].uuid != found["b1"].uuid == found["b2"].uuid
    assert found["a1"].share.placement == {"camera": "a2", "grip": "a1"}
    assert found["a2"].share.placement == {"camera": "a2", "grip": "a1"}
    ports = {id_: each.share.listen[0].rpartition(":")[2] for id_, each in found.items()}
    assert ports == dict.fromkeys(found, ports["a1"])
    assert found["a2"].share.connect == [f"tls/10.0.0.1:{ports['a1']}"]
    assert found["a1"].share.machine == "a1"


def test_a_machine_without_a_node_has_no_part_and_one_alone_no_link():
    found = made(robots("a1", "a2"), manifest=release(camera=Place(machine="a1")))
    assert list(found) == ["a1"]
    assert (found["a1"].share.listen, found["a1"].share.connect) == ([], [])


def test_robots_that_are_off_take_part():
    assert list(made(robots("a1", "a2"), of=groups(trouble="it is off"))) == ["a1", "a2"]


def test_ports_of_other_dataflows_are_left_to_them_and_own_ones_stay():
    first = Known("x", "x").zenoh_port
    found = made(robots("a1", "a2"), of=groups(used={("a1", first), ("a2", first + 1)}))
    listen = {id_: each.share.listen for id_, each in found.items()}
    assert listen == {"a1": [f"tls/0.0.0.0:{first + 1}"], "a2": [f"tls/0.0.0.0:{first}"]}
    placement = {"camera": "a2", "grip": "a1"}
    before = {"a1": group("a1", placement, port=9000), "a2": group("a2", placement)}
    found = made(robots("a1", "a2", **before))
    listen = {id_: each.share.listen for id_, each in found.items()}
    assert listen == {"a1": ["tls/0.0.0.0:9000"], "a2": [f"tls/0.0.0.0:{first}"]}
    # The port of a machine that has no node any more counts no more.
    before["a2"] = group("a2", placement, port=9001)
    found = made(robots("a1", "a2", **before), manifest=release(camera=Place(machine="a1")))
    assert found["a1"].share.listen == []


def test_nodes_stay_where_they_run_and_the_run_stays_the_same():
    both = {"a": {"role": "arm", "cell": "a"}, "b": {"role": "arm", "cell": "a"}}
    anywhere = release(camera=Place(labels={"role": "arm"}))
    chosen = [Candidate("a", both["a"]), Candidate("b", both["b"])]
    fresh = made(chosen, of=groups(labels=both), manifest=anywhere)
    assert fresh["a"].share.placement == {"camera": "a", "grip": "b"}
    placement = {"camera": "b", "grip": "b"}
    before = Candidate("b", both["b"], before_group=group("b", placement))
    found = made([chosen[0], before], of=groups(labels=both), manifest=anywhere)
    assert {id_: each.share.placement for id_, each in found.items()} == {"b": placement}
    assert found["b"].uuid == RUN
    # What another machine says of it, or of an instance that it has left, does not count.
    for other in (group("a", placement), group("b", placement, instance="z")):
        said = Candidate("a", both["a"], before_group=other)
        found = made([said, chosen[1]], of=groups(labels=both), manifest=anywhere)
        assert found["a"].share.placement["camera"] == "a"


def test_a_node_leaves_a_machine_that_its_rules_do_not_allow_any_more():
    before = group("a1", {"camera": "a1", "grip": "a1"})
    found = made(robots("a1", "a2", a1=before))
    assert found["a1"].share.placement == {"camera": "a2", "grip": "a1"}


def test_machines_that_have_run_apart_begin_a_new_run():
    placement = {"camera": "a2", "grip": "a1"}
    before = {"a1": group("a1", placement), "a2": group("a2", placement, run=OTHER_RUN)}
    found = made(robots("a1", "a2", **before))
    assert found["a1"].uuid == found["a2"].uuid
    assert found["a1"].uuid not in (RUN, OTHER_RUN)


def test_nodes_of_other_dataflows_occupy_what_they_use():
    other = (Requirements("x/lidar", avoids_nodes=frozenset({"camera"})), "a2")
    text = refusal(robots("a1", "a2"), of=groups(other))
    assert "no machine of `a` takes the node `camera`" in text
    assert "`a1`: its label `role` is `arm`, not `cam`; `a2`: `x/lidar` is here" in text
    assert "stop there what uses it" in text


@pytest.mark.parametrize(
    ("chosen", "scope", "camera", "hint"),
    [
        (
            ["a1"],
            CELLS,
            PLACES["camera"],
            "`a2` would, but its label `cell` is `a`: `dorafleet labels a2 cell=a` if it belongs",
        ),
        (
            ["b1"],
            CELLS,
            Place(machine="spare"),
            "`spare` would, but it has no label `cell`: `dorafleet labels spare cell=b` if it",
        ),
        (["a1"], "one", PLACES["camera"], "`a2` would: select it, too"),
        (["a1"], CELLS, Place(labels={"role": "x"}), "change `deploy` of the node, or labels"),
    ],
)  # fmt: skip
def test_a_node_without_a_machine_names_the_nearest_way_out(chosen, scope, camera, hint):
    assert hint in refusal(robots(*chosen), scope=scope, manifest=release(camera=camera))


def test_a_release_that_does_not_say_where_nodes_run_has_no_groups():
    old = msgspec.structs.replace(release(), format=1)
    assert made(robots("a1", "a2"), scope="each", manifest=old) == {}
    assert "its manifest does not say" in refusal(robots("a1", "a2"), manifest=old)


# -- what runs now


def test_an_instance_is_never_torn_apart():
    placement = {"camera": "a2", "grip": "a1"}
    before = {"a1": group("a1", placement), "a2": group("a2", placement)}
    everyone = robots("a1", "a2", "b1", "b2", **before)
    one = [each for each in everyone if each.id != "a2"]
    assert refusal(one, fleet=everyone).startswith(
        "`a1` runs it together with `a2`, which is not selected"
    )
    assert refusal(one, fleet=everyone, scope="each").startswith("`a1` runs it together")
    assert set(made(everyone, fleet=everyone)) == {"a1", "a2", "b1", "b2"}
    others = [each for each in everyone if each.id.startswith("b")]
    assert set(made(others, fleet=everyone)) == {"b1", "b2"}


def test_a_machine_that_loses_its_last_node_gets_the_group_without_a_node_of_it():
    placement = {"camera": "a2", "grip": "a1"}
    before = {"a1": group("a1", placement), "a2": group("a2", placement)}
    alone = release(camera=Place(machine="a1"))
    found = made(robots("a1", "a2", **before), manifest=alone)
    now = {"camera": "a1", "grip": "a1"}
    assert (found["a2"].share, found["a2"].uuid) == (Share(machine="a2", placement=now), RUN)
    assert made(robots("a1", "a2", **before), manifest=alone, scope="each") == {}
    # Of another instance nothing stays.
    moved = robots("a1", "a2", "b1", b1=group("b1", {"grip": "b1"}, instance="z"))
    text = refusal(moved, manifest=release(camera=Place(labels={}), grip=Place(machine="a1")),
                   scope="one")  # fmt: skip
    assert text.startswith("`z` would have no machine any more: `b1` runs it now")


def test_machines_that_are_given_up_get_no_node_and_leave():
    labels = {each: {"cell": "a", "role": "arm"} for each in ("a1", "off2")}
    anywhere = release(camera=Place(labels={"role": "arm"}))
    placement = {"camera": "off2", "grip": "a1"}
    before = {each: group(each, placement) for each in labels}
    chosen = [
        Candidate(each, labels[each], before_group=before[each], reachable=each == "a1")
        for each in labels
    ]
    of = groups(labels=labels)
    found = made(chosen, of=of, manifest=anywhere, given_up=["off2"])
    assert found["a1"].share.placement == {"camera": "a1", "grip": "a1"}
    assert found["off2"].share.placement == found["a1"].share.placement
    text = refusal(chosen, of=of, manifest=anywhere, given_up=["a1", "off2"])
    assert text.startswith("instance `a` has no machine: all of `a1`, `off2` are given up")
    text = refusal(chosen, of=of, manifest=anywhere, given_up=["a1"])
    assert text.startswith("`a1` cannot be given up: it can be reached, and leaves by itself")
    new = [chosen[0], Candidate("off2", labels["off2"], reachable=False)]
    for given_up in ("off2", "unknown"):
        text = refusal(new, of=of, manifest=anywhere, given_up=[given_up])
        assert text.startswith(f"`{given_up}` cannot be given up: it runs no part of an instance")


def test_the_first_reason_of_many_machines_are_shown():
    labels = {f"r{number}": {"cell": "a"} for number in range(module.MAX_NAMED + 2)}
    chosen = [Candidate(each, its) for each, its in labels.items()]
    text = refusal(chosen, of=groups(labels=labels))
    assert text.count("it has no label `role`") == module.MAX_NAMED
