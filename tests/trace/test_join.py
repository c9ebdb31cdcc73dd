"""Records of nodes become messages, and messages traces."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.shm.hoplog import Hop
from dorad.shm.layout import HOP_CONTEXT, HOP_DROP, HOP_RECEIVE
from dorad.trace import join
from dorad.trace.build import as_trace, path_text, ways
from dorad.trace.join import Joiner
from dorad.trace.model import NodePlaces, Place, forget
from tests.trace.recorded import MS, Recorded, chain, fed, joined, ns, run_chain, tick


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_a_tick_and_all_that_followed_from_it_are_one_trace_in_whichever_order_it_is_read(order):
    nodes = chain()
    run_chain(nodes, 0)
    run_chain(nodes, 100)
    trees = joined(*(nodes[place] for place in order))
    assert len(trees) == 2
    trace = as_trace(trees[0], "flow")
    assert trace.path == "camera/tick → camera → detector → planner"
    assert trace.duration == pytest.approx(0.022)
    assert [(span.node, span.topic, span.parent) for span in trace.spans] == [
        ("camera", "camera/tick", None),
        ("detector", "camera/image", 0),
        ("planner", "detector/boxes", 1),
    ]
    detector = trace.spans[1]
    assert (detector.sent, detector.received, detector.done) == pytest.approx(
        (0.005, 0.007, 0.0175)
    )
    assert (detector.queued, detector.bytes) == (3, 8)
    assert not (trace.cut or trace.running or trace.dropped or trace.failed)


def test_time_is_wait_while_the_receiver_is_busy_work_while_it_works_and_transport_else():
    nodes = chain()
    run_chain(nodes, 0)
    run_chain(nodes, 100, work=40)
    run_chain(nodes, 110, work=10)
    detector = nodes.detector
    # The third image was sent at 115 and is received at 148, 0.5 ms after the second was done.
    late = [hop for hop in detector.hops if hop.stamp == ns(115)]
    detector.hops[detector.hops.index(late[0])] = late[0]._replace(at_ns=ns(148))
    trees = joined(*nodes)
    span = as_trace(trees[2], "flow").spans[1]
    assert (span.wait, span.received) == pytest.approx((0.0325, 0.038))
    first = next(ways(trees[0]))
    assert (first.wait, first.work) == (0, (4 + 10 + 4) * MS)
    assert first.total - first.wait - first.work == (1 + 2 + 1) * MS
    assert first.complete


def test_the_message_sent_last_is_the_cause_of_what_a_synchronised_set_leads_to():
    odometry = Recorded("odometry", {}, ("pose",))
    detector = Recorded("detector", {}, ("boxes",))
    synced = {
        "boxes": Place("boxes", "detector/boxes", sync="both"),
        "odom": Place("odom", "odometry/pose", sync="both"),
    }
    follower = Recorded("planner", synced, ("plan",))
    detector.send("boxes", 10)
    odometry.send("pose", 7.7)
    follower.receive("boxes", 10, 12)
    follower.receive("odom", 7.7, 12.1)
    follower.send("plan", 20, ("odom", 7.7))
    follower.done("odom", 7.7, 21)
    pose, boxes = joined(odometry, detector, follower)
    assert [message.topic for message in boxes.messages] == ["detector/boxes", "planner/plan"]
    assert [message.topic for message in pose.messages] == ["odometry/pose"]
    span = as_trace(boxes, "flow").spans[0]
    assert span.done == pytest.approx(0.011)
    (link,) = span.links
    assert (link.topic, link.age) == ("odometry/pose", pytest.approx(0.0023))


@pytest.mark.parametrize("received_next", [True, False])
def test_a_drop_is_found_at_the_message_that_was_lost(received_next):
    nodes = chain()
    camera, detector, _ = nodes
    for at in range(0, 60, 10):
        camera.receive("tick", at, at)
        camera.send("image", at + 1, ("tick", at))
        camera.done("tick", at, at + 2)
    detector.receive("image", 1, 2)
    detector.done("image", 1, 40)
    detector.drop("image", 40, 2)
    if received_next:
        detector.receive("image", 31, 40)
        detector.done("image", 31, 41)
    traces = [as_trace(tree, "flow") for tree in joined(camera, detector)]
    assert [trace.dropped for trace in traces] == [0, 1, 1, 0, 0, 0]
    dropped = traces[1].spans[1]
    assert (dropped.node, dropped.input, dropped.outcome) == ("detector", "image", "dropped")
    assert dropped.received is None


def test_drops_of_messages_that_nobody_knows_are_counted():
    joiner = Joiner()
    detector = chain().detector
    detector.drop("image", 40, 7)
    assert joined(detector, joiner=joiner) == []
    assert joiner.drops == 7


def test_what_a_process_worked_on_when_it_failed_has_failed():
    nodes = chain()
    camera, detector, _ = nodes
    camera.receive("tick", 0, 0)
    camera.send("image", 1, ("tick", 0))
    camera.done("tick", 0, 2)
    detector.receive("image", 1, 2, thread=77)
    joiner = Joiner()
    joiner.add("camera", camera.places, camera.hops, 0)
    joiner.add("detector", detector.places, detector.hops, 0)
    assert joiner.settle(2 * join.QUIET_NS) == []  # it works on it
    joiner.process_ended("detector", lambda thread: thread != 77, 3, failed=True)
    assert not as_trace(joiner.present(9)[0], "flow").failed
    joiner.process_ended("detector", lambda thread: thread == 77, 3, failed=True)
    (tree,) = joiner.settle(9 * join.QUIET_NS)
    assert as_trace(tree, "flow").failed == 1
    assert not next(ways(tree)).complete


def test_a_trace_whose_beginning_was_lost_says_so_and_one_from_another_machine_does_not():
    detector = chain().detector
    detector.receive("image", 1, 2)
    detector.done("image", 1, 3)
    (tree,) = joined(detector)
    assert as_trace(tree, "flow").cut
    assert not next(ways(tree)).complete
    remote = Recorded("detector", {"image": Place("image", "camera/image", local=False)})
    remote.receive("image", 1, 2)
    remote.done("image", 1, 3)
    (tree,) = joined(remote)
    assert not as_trace(tree, "flow").cut
    assert next(ways(tree)).complete


def test_no_message_is_received_before_it_was_sent_if_the_clock_of_its_machine_is_ahead():
    places = {"image": Place("image", "camera/image", local=False)}
    detector = Recorded("detector", places, ("boxes",))
    detector.receive("image", 50, 3, queued=1)
    detector.send("boxes", 51, ("image", 50))
    detector.done("image", 50, 8)
    (tree,) = joined(detector)
    trace = as_trace(tree, "flow")
    assert (trace.spans[0].sent, trace.spans[0].received) == (0.0, 0.0)
    assert trace.start == pytest.approx(ns(3) / 1e9)


def test_a_node_that_passes_messages_on_is_done_with_each_at_once():
    link = Recorded("dora.link", fed(image="camera/image"))
    link.places = link.places._replace(passes_on=True)
    for at in range(3):
        link.receive("image", at, at + 0.5)
    assert [tree.working for tree in joined(link)] == [False] * 3


def test_of_a_set_one_part_of_which_was_not_waited_for_the_other_is_the_cause():
    places = {
        "boxes": Place("boxes", "detector/boxes", sync="both"),
        "odom": Place("odom", "odometry/pose", sync="both"),
    }
    follower = Recorded("planner", places, ("plan",))
    follower.receive("odom", 10, 11)
    follower.receive("boxes", 7, 12)
    follower.send("plan", 20, ("boxes", 7))
    joiner = Joiner()
    joiner.add("planner", follower.places, follower.hops[:1], 0)
    joiner.add("planner", follower.places, follower.hops[1:2], join.LONGEST_NS - 1)
    (pose,) = joiner.settle(join.LONGEST_NS)
    forget(pose)
    joiner.add("planner", follower.places, follower.hops[2:], join.LONGEST_NS)
    (boxes,) = joined(joiner=joiner)
    assert [message.topic for message in boxes.messages] == ["detector/boxes", "planner/plan"]


def well_behaved(chance: random.Random) -> list[Recorded]:
    """Return nodes whose threads take messages of each other, some of them at once."""
    nodes = [*chain(), Recorded("viewer", fed(image="camera/image", boxes="detector/boxes"))]
    camera, detector, planner, viewer = nodes
    for at in range(0, 2000, 100):
        camera.receive("tick", at, at + chance.randint(0, 9))
        camera.send("image", at + 10, chance.choice([("tick", at), None]))
        if chance.random() < 0.9:
            camera.done("tick", at, at + 11)
        thread = chance.randint(5, 6)
        detector.receive("image", at + 10, at + chance.randint(8, 30), thread=thread)
        detector.send("boxes", at + 40, ("image", at + 10))
        detector.done("image", at + 10, at + chance.randint(5, 60), thread=thread)
        for node, name, stamp in ((planner, "boxes", 40), (viewer, "boxes", 40)):
            node.receive(name, at + stamp, at + stamp + 1, queued=chance.randint(0, 2))
            node.done(name, at + stamp, at + stamp + 2)
        if chance.random() < 0.5:
            viewer.receive("image", at + 10, at + 60)
            viewer.receive("image", at + 10, at + 61)
        elif chance.random() < 0.5:
            viewer.drop("image", at + 60, 1)
    return nodes


@given(st.integers(0, 2**32), st.permutations(range(4)))
def test_records_give_the_same_traces_one_by_one_as_all_at_once(seed, order):
    nodes = well_behaved(random.Random(seed))
    nodes = [nodes[place] for place in order]
    at_once, one_by_one = Joiner(), Joiner()
    for node in nodes:
        at_once.add(node.name, node.places, node.hops, 0)
        for hop in node.hops:
            # Nothing that the joiner knows of the places of the record before holds for it.
            one_by_one.add(node.name, NodePlaces(*node.places), [hop], 0)
    for joiner in (at_once, one_by_one):
        joiner.process_ended("camera", lambda thread: thread == 5, 0, failed=True)
    expected, traces = (
        [as_trace(tree, "flow") for tree in joined(joiner=each)] for each in (at_once, one_by_one)
    )
    assert traces == expected
    assert at_once.drops == one_by_one.drops
    counts = [
        {name: (work.counts, work.total) for name, work in each.work["viewer"].items()}
        for each in (at_once, one_by_one)
    ]
    assert counts[0] == counts[1]


def test_a_loop_ends_and_begins_anew():
    node = Recorded("loop", fed(back="loop/out"), ("out",))
    node.send("out", 0)
    for at in range(1, 200):
        node.receive("back", at - 1, at - 0.5)
        node.send("out", at, ("back", at - 1))
        node.done("back", at - 1, at + 0.1)
    trees = joined(node)
    assert [len(tree.messages) for tree in trees] == [64, 64, 64, 8]
    assert [as_trace(tree, "flow").cut for tree in trees] == [False, True, True, True]
    assert sum(len(tree.messages) for tree in trees) == 200


def test_a_trace_is_complete_when_nothing_happens_any_more_and_is_not_waited_for_forever():
    nodes = chain()
    run_chain(nodes, 0)
    joiner = Joiner()
    joiner.add("camera", nodes.camera.places, nodes.camera.hops, 0)
    half = join.QUIET_NS // 2
    joiner.add("detector", nodes.detector.places, nodes.detector.hops[:1], half)
    assert joiner.settle(join.QUIET_NS) == []
    assert as_trace(joiner.present(5)[0], "flow").running
    assert joiner.settle(join.LONGEST_NS - 1) == []
    (tree,) = joiner.settle(2 * join.LONGEST_NS)
    assert tree.working
    joiner.add("detector", nodes.detector.places, nodes.detector.hops[1:], 2 * join.LONGEST_NS)
    (rest,) = joined(joiner=joiner)
    assert as_trace(rest, "flow").cut


def test_too_many_messages_are_taken_as_they_are(monkeypatch):
    monkeypatch.setattr(join, "MAX_MESSAGES", 50)
    camera = chain().camera
    for at in range(200):
        camera.send("image", at)
    joiner = Joiner()
    joiner.add("camera", camera.places, camera.hops, 0)
    assert [tree.messages[0].stamp for tree in joiner.settle(0)] == [ns(at) for at in range(150)]
    assert len(joiner) == 50


words = st.one_of(
    st.integers(0, 4), st.sampled_from((9000, 9128, 70, 71)), st.integers(0, 2**64 - 1)
)


@given(
    st.lists(
        st.builds(
            Hop,
            kind=st.integers(HOP_RECEIVE, HOP_DROP),
            thread=st.integers(0, 2**32 - 1),
            at_ns=words,
            place=words,
            stamp=words,
            parent_place=words,
            parent_stamp=words,
            value=words,
        ),
        max_size=60,
    )
)
def test_nonsense_never_raises_and_every_message_ends_in_one_trace(hops):
    rings = {
        9000: Place("in", "a/out"),
        9128: Place("tick", "a/tick", tick=True),
        71: Place("both", "a/other", sync="both"),
    }
    places = NodePlaces(rings, {70: "a/out", 71: "a/other"})
    joiner = Joiner()
    joiner.add("a", places, hops[::2], 0)
    joiner.add("a", places, hops[1::2], 5)
    joiner.process_ended("a", lambda thread: thread % 2 == 0, 6, failed=True)
    for tree in joiner.present(5):
        as_trace(tree, "flow")
    known = [message.key for topic in joiner._messages.values() for message in topic.values()]
    trees = joiner.settle(0, everything=True)
    found = [(each.topic, each.stamp) for tree in trees for each in tree.messages]
    assert sorted(found) == sorted(known)
    for tree in trees:
        trace = as_trace(tree, "flow")
        assert all(span.parent is None or span.parent < at for at, span in enumerate(trace.spans))
        for way in ways(tree):
            assert way.total >= 0 and way.wait >= 0 and way.work >= 0
            assert path_text(way.steps)


def test_work_is_counted_by_input_until_the_next_message_is_asked_for():
    joiner = Joiner()
    for at in (0, 100, 200):
        nodes = chain()
        run_chain(nodes, at, work=10.0 if at else 40.0)
        joined(*nodes, joiner=joiner)
    detector = joiner.work["detector"]["image"]
    assert detector.topic == "camera/image"
    assert detector.total == round((40.5 + 10.5 + 10.5) * MS)
    counts = {bits: count for bits, count in enumerate(detector.counts) if count}
    assert counts == {round(10.5 * MS).bit_length(): 2, round(40.5 * MS).bit_length(): 1}
    # Also of a trace that was complete before the node was done.
    late = Recorded("detector", fed(image="camera/image"))
    late.receive("image", 500, 501)
    joined(late, joiner=joiner)
    late.hops.clear()
    late.done("image", 500, 521)
    joined(late, joiner=joiner)
    assert detector.total == round((61.5 + 20) * MS)


def test_a_trace_context_that_is_not_valid_is_counted():
    source = Recorded("source", {}, ("out",))
    source.send("out", 0)
    source.hops.append(Hop(HOP_CONTEXT, 5, ns(0), 70, ns(0), 0, 0, 0))
    joiner = Joiner()
    (tree,) = joined(source, joiner=joiner)
    assert (joiner.contexts, tree.messages[0].context) == (1, "")


def test_parts_of_a_node_that_has_no_such_input_are_counted():
    joiner = Joiner()
    camera = Recorded("camera", tick("camera"), ("image",))
    camera.send("image", 1)
    joiner.add("camera", NodePlaces({}, {}), camera.hops, 0)
    assert (joiner.unknown, len(joiner)) == (1, 0)
