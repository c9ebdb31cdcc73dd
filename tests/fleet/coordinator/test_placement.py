"""Placement: every rule by example, and what holds for any fleet and any nodes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from dorad.dataflow.settings import Amounts
from dorafleet.coordinator.placement import (
    Candidate,
    Requirements,
    Rule,
    is_allowed,
    place,
)

MACHINES = ("m0", "m1", "m2")
NODES = ("a", "b", "c", "d", "e", "f")
RICH = Amounts(2.0, 4, 4, ("/dev/video0", "gripper"))
CAMERA = Amounts(devices=("/dev/video0",))
LABELS = st.dictionaries(st.sampled_from(["zone", "arm"]), st.sampled_from(["1", "2"]))
DEVICES = st.lists(st.sampled_from(["/dev/video0", "gripper"]), unique=True).map(tuple)


def mostly(value, strategy):
    """One value in three of four cases: with a rule for everything, no node would be placed."""
    return st.integers(0, 3).flatmap(lambda chance: st.just(value) if chance else strategy)


def amounts(largest):
    return st.builds(
        Amounts,
        cpu=st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0, largest * 1.0]),
        memory=st.none() | st.integers(0, largest),
        gpu=st.none() | st.integers(0, largest),
        devices=st.none() | DEVICES,
    )


@st.composite
def fleets(draw, least=0):
    ids = draw(st.lists(st.sampled_from(MACHINES), unique=True, min_size=least))
    return [Candidate(id_, draw(LABELS), draw(mostly(RICH, amounts(4)))) for id_ in ids]


@st.composite
def requirements(draw, nodes=NODES):
    ids = draw(st.lists(st.sampled_from(nodes), unique=True))
    return [
        Requirements(
            id_,
            draw(mostly(None, st.sampled_from((*MACHINES, "absent")))),
            draw(mostly({}, LABELS)),
            draw(st.sampled_from((Amounts(), CAMERA)) | amounts(2)),
            frozenset(draw(st.sets(st.sampled_from(MACHINES), max_size=1))),
            frozenset(draw(st.sets(st.sampled_from(nodes), max_size=2))) - {id_},
        )
        for id_ in ids
    ]


@st.composite
def situations(draw):
    """Machines, nodes that already run somewhere, by whatever rules, and nodes to place."""
    machines = draw(fleets())
    running = draw(requirements(("x", "y", "a", "b")))
    placed = [(node, draw(st.sampled_from((*MACHINES, "gone")))) for node in running]
    return machines, placed, draw(requirements())


def rejects(node, machine, there):
    """The rules once more, in other words."""
    capacity, needs = machine.capacity, node.needs
    taken = [device for other in there for device in other.needs.devices or ()]
    return any(
        (
            node.machine is not None and node.machine != machine.id,
            machine.id in node.avoids_machines,
            any(o.id in node.avoids_nodes or node.id in o.avoids_nodes for o in there),
            not node.labels.items() <= machine.labels.items(),
            any(d not in (capacity.devices or ()) or d in taken for d in needs.devices or ()),
            *(
                (getattr(needs, name) or 0)
                + sum(getattr(other.needs, name) or 0 for other in there)
                > (getattr(capacity, name) or 0) + 1e-6
                for name in ("cpu", "memory", "gpu")
                if getattr(needs, name)
            ),
        )
    )


def occupants(machine_id, placed, decisions, asked):
    """The requirements on a machine in the end."""
    home = {node.id for node, _ in placed}
    there = [node for node, where in placed if where == machine_id]
    new = [w for w in asked if w.id not in home and decisions[w.id].machine == machine_id]
    return there + new


@pytest.mark.long
@settings(max_examples=100)
@given(situations())
def test_no_machine_gets_a_node_that_a_rule_rejects_given_all_that_is_there_in_the_end(situation):
    machines, placed, asked = situation
    decisions = place(asked, machines, placed)
    home = {node.id for node, _ in placed}
    for machine in machines:
        there = occupants(machine.id, placed, decisions, asked)
        for node in there:
            if node.id not in home:
                others = [other for other in there if other is not node]
                assert not rejects(node, machine, others), (node, machine)


@pytest.mark.long
@settings(max_examples=40)
@given(situations())
def test_a_pending_node_is_rejected_by_every_machine_also_in_the_end(situation):
    machines, placed, asked = situation
    decisions = place(asked, machines, placed)
    for node in asked:
        decision = decisions[node.id]
        if decision.machine is None:
            assert all(v.rule not in (None, Rule.SPREAD) for v in decision.verdicts)
            for machine in machines:
                there = occupants(machine.id, placed, decisions, asked)
                assert rejects(node, machine, there)


@pytest.mark.long
@settings(max_examples=40)
@given(situations())
def test_every_machine_has_a_verdict_and_only_the_chosen_one_no_rule(situation):
    machines, placed, asked = situation
    decisions = place(asked, machines, placed)
    assert list(decisions) == [node.id for node in asked]
    for decision in decisions.values():
        assert [each.machine for each in decision.verdicts] == [m.id for m in machines]
        assert all(each.reason for each in decision.verdicts)
        chosen = [each.machine for each in decision.verdicts if each.rule is None]
        expected = [decision.machine] if decision.machine in [m.id for m in machines] else []
        assert chosen == expected


@pytest.mark.long
@settings(max_examples=40)
@given(situations())
def test_the_same_question_has_the_same_answer(situation):
    machines, placed, asked = situation
    assert place(asked, machines, placed) == place(asked, machines, placed)


@settings(max_examples=40)
@given(situations(), fleets(), st.randoms())
def test_a_node_that_is_placed_stays_whatever_happens_to_the_fleet(situation, other, chance):
    machines, placed, asked = situation
    before = place(asked, machines, placed)
    home = {node.id: where for node, where in placed}
    now = placed + [
        (node, before[node.id].machine)
        for node in asked
        if node.id not in home and before[node.id].machine is not None
    ]
    changed = {machine.id: machine for machine in (*machines, *other)}
    fleet = [*changed.values()]
    chance.shuffle(fleet)
    after = place(asked, fleet, now)
    for node in asked:
        if before[node.id].machine is not None:
            assert after[node.id].machine == before[node.id].machine
    for node, where in placed:
        if node.id in after:
            assert after[node.id].machine == where


@given(st.integers(1, 6), st.integers(0, 30))
def test_nodes_without_requirements_spread_evenly_with_the_first_machines_first(machines, nodes):
    fleet = [Candidate(f"m{number}") for number in range(machines)]
    asked = [Requirements(f"n{number}") for number in range(nodes)]
    found = [decision.machine for decision in place(asked, fleet).values()]
    assert found == [f"m{number % machines}" for number in range(nodes)]


@pytest.mark.long
@settings(max_examples=50)
@given(situations())
def test_a_node_goes_where_the_fewest_are_of_what_fits(situation):
    machines, placed, asked = situation
    for node in asked[:1]:
        if node.id in {other.id for other, _ in placed}:
            continue
        there = {m.id: [w for w, where in placed if where == m.id] for m in machines}
        load = Counter({m.id: len(there[m.id]) for m in machines})
        fitting = [m.id for m in machines if not rejects(node, m, there[m.id])]
        wanted = min(fitting, key=load.__getitem__) if fitting else None
        assert place([node], machines, placed)[node.id].machine == wanted


def verdicts(node, *machines, placed=()):
    found = place([node], machines, placed)[node.id]
    return [(each.rule, each.reason) for each in found.verdicts]


def test_the_first_rule_in_order_is_the_one_that_is_named():
    full = Candidate("m", {"zone": "1"}, Amounts(1.0, 1 << 30, 0, ("gripper",)))
    other = Requirements("other", needs=Amounts(0.5, 1 << 29, None, ("gripper",)))
    steps = [
        ({"machine": "n"}, Rule.MACHINE, "the node asks for `n`"),
        ({"avoids_machines": frozenset({"m"})}, Rule.AVOID, "the node avoids it"),
        (
            {"avoids_nodes": frozenset({"other"})},
            Rule.AVOID,
            "`other` is here, which the node avoids",
        ),
        ({"labels": {"zone": "2"}}, Rule.LABELS, "its label `zone` is `1`, not `2`"),
        ({"labels": {"arm": "2"}}, Rule.LABELS, "it has no label `arm`"),
    ]
    needs = [
        (Amounts(devices=("lidar",)), Rule.DEVICES, "it has no `lidar`"),
        (Amounts(devices=("gripper",)), Rule.DEVICES, "`other` uses its `gripper`"),
        (Amounts(gpu=1), Rule.GPU, "1 GPU needed, 0 free"),
        (Amounts(memory=1 << 30), Rule.MEMORY, "1 GB needed, 512 MB free"),
        (Amounts(cpu=0.6), Rule.CPU, "0.6 cores needed, 0.5 free"),
    ]
    steps += [({"needs": each}, rule, reason) for each, rule, reason in needs]
    later = Requirements("n")
    for given_, rule, reason in reversed(steps):
        # With every later rule broken, too; a device that is not there comes before one in use.
        more = dict(given_)
        if "needs" in more:
            own = {name: value for name, value in asdict(more["needs"]).items() if value}
            more["needs"] = replace(later.needs, **own)
        later = replace(later, **more)
        assert verdicts(later, full, placed=[(other, "m")]) == [(rule, reason)]


def test_what_a_machine_does_not_state_it_does_not_have():
    for needs, word in (
        (Amounts(cpu=0.1), "cores"),
        (Amounts(memory=1), "memory"),
        (Amounts(gpu=1), "GPUs"),
        (Amounts(devices=("d",)), "devices"),
    ):
        ((_, reason),) = verdicts(Requirements("n", needs=needs), Candidate("m"))
        assert reason.startswith(f"its {word}")
        assert "not given: see `capacity." in reason
    for needs in (Amounts(), Amounts(0.0, 0, 0, ())):
        assert verdicts(Requirements("n", needs=needs), Candidate("m"))[0][0] is None


def test_a_machine_in_trouble_gets_no_node_and_keeps_those_it_has():
    away = Candidate("m", trouble="it is not connected")
    assert verdicts(Requirements("n"), away, Candidate("o")) == [
        (Rule.AWAY, "it is not connected"),
        (None, "nothing else fits"),
    ]
    ((rule, reason),) = verdicts(Requirements("n"), away)
    assert (rule, reason) == (Rule.AWAY, "it is not connected")
    assert verdicts(Requirements("n"), away, placed=[(Requirements("n"), "m")]) == [
        (None, "the node runs here")
    ]


def test_nodes_that_need_nothing_take_nothing_from_those_that_need_all():
    machine = Candidate("m", {}, Amounts(1.0, 4096, 1, ("lidar",)))
    others = [(Requirements("x"), "m"), (Requirements("y", needs=Amounts(0.0, 0, 0, ())), "m")]
    for needs in (Amounts(1.0, 4096, 1, ("lidar",)), Amounts(gpu=1), Amounts(memory=4096)):
        assert verdicts(Requirements("n", needs=needs), machine, placed=others)[0][0] is None


def test_sizes_are_in_the_units_of_dataflow_files():
    for needed, capacity, text in (
        (2000, 100, "1.953 KB needed, 100 B free"),
        (1, 0, "1 B needed, 0 B free"),
        (1024, 1023, "1 KB needed, 1023 B free"),
        (3 << 20, 1 << 20, "3 MB needed, 1 MB free"),
        (5 << 30, 1 << 30, "5 GB needed, 1 GB free"),
    ):
        node = Requirements("n", needs=Amounts(memory=needed))
        machine = Candidate("m", capacity=Amounts(memory=capacity))
        assert verdicts(node, machine) == [(Rule.MEMORY, text)]
    gpus = Requirements("n", needs=Amounts(gpu=2))
    assert verdicts(gpus, Candidate("m", capacity=Amounts(gpu=1))) == [
        (Rule.GPU, "2 GPUs needed, 1 free")
    ]


def test_avoiding_counts_both_ways():
    asked = [
        Requirements("a"),
        Requirements("b", avoids_nodes=frozenset({"a"})),
        Requirements("c"),
    ]
    found = place(asked, [Candidate("m")])
    assert found["a"].machine == "m"
    assert found["b"].machine is None
    placed = [(asked[1], "m")]
    assert verdicts(asked[0], Candidate("m"), placed=placed) == [
        (Rule.AVOID, "`b` is here and avoids the node")
    ]


def test_a_node_with_little_choice_goes_before_those_with_much():
    machines = [Candidate("m0", {"arm": "1"}, Amounts(cpu=1.0)), Candidate("m1", {}, Amounts(1.0))]
    needs = Amounts(cpu=1.0)
    found = place(
        [
            Requirements("free", needs=needs),
            Requirements("bound", None, {"arm": "1"}, needs),
        ],
        machines,
    )
    assert (found["bound"].machine, found["free"].machine) == ("m0", "m1")


def test_a_tenth_of_a_core_fits_ten_times():
    asked = [Requirements(f"n{number}", needs=Amounts(cpu=0.1)) for number in range(11)]
    found = place(asked, [Candidate("m", capacity=Amounts(cpu=1.0))])
    assert [decision.machine for decision in found.values()] == ["m"] * 10 + [None]


def test_of_equals_the_first_is_chosen_and_the_others_say_so():
    machines = [Candidate("m0"), Candidate("m1"), Candidate("m2")]
    placed = [(Requirements("x"), "m0"), (Requirements("y"), "m0")]
    assert verdicts(Requirements("n"), *machines, placed=placed) == [
        (Rule.SPREAD, "it has 2 nodes, 2 more than `m1`"),
        (None, "it has the fewest nodes"),
        (Rule.SPREAD, "it has 0 nodes, as many as `m1`, which comes first"),
    ]
    assert verdicts(Requirements("x"), *machines, placed=placed) == [
        (None, "the node runs here"),
        (Rule.STAYS, "the node runs on `m0`"),
        (Rule.STAYS, "the node runs on `m0`"),
    ]


def test_a_machine_that_is_not_the_best_says_by_how_many_nodes():
    machines = [Candidate(each, {}, Amounts()) for each in ("m1", "m2", "m3")]
    placed = [
        (Requirements(f"n{number}"), machine)
        for number, machine in enumerate(("m1", "m2", "m2", "m2", "m3"))
    ]
    assert verdicts(Requirements("new"), *machines, placed=placed) == [
        (None, "it has the fewest nodes"),
        (Rule.SPREAD, "it has 3 nodes, 2 more than `m1`"),
        (Rule.SPREAD, "it has 1 node, as many as `m1`, which comes first"),
    ]


def test_what_is_needed_is_what_is_there_without_what_others_use():
    capacity = Amounts(4.0, 4096, 4, ("lidar",))
    other = Requirements("other", needs=Amounts(1.0, 1024, 1))
    for name, free, more in (("cpu", 3.0, 3.001), ("memory", 3072, 3073), ("gpu", 3, 4)):
        for count, fits in ((free, True), (more, False)):
            node = Requirements("n", needs=Amounts(**{name: count}))
            machine = Candidate("m", capacity=capacity)
            ((rule, _),) = verdicts(node, machine, placed=[(other, "m")])
            assert (rule is None) == fits
            # With all its resources free.
            assert is_allowed(node, machine)
            assert not is_allowed(node, Candidate("m"))


def test_a_machine_that_refuses_a_node_itself_says_why():
    machine = Candidate("m", refused={"n": "its file allows no node `n`"})
    assert verdicts(Requirements("n"), machine) == [(Rule.ACCEPT, "its file allows no node `n`")]
    assert verdicts(Requirements("other"), machine) == [(None, "nothing else fits")]
