"""A part of a trace over machines is kept, or can be fetched, because another machine keeps its."""

from collections.abc import Iterator

import pytest

from dorad.control import messages as m
from dorad.trace import linked
from dorad.trace.join import Joiner
from dorad.trace.machines import Part, join, lacking
from dorad.trace.model import Place
from dorad.trace.store import TraceStore
from dorad.trace.waterfall import problems, waterfall
from tests.trace.recorded import LATER, Linked, Recorded, fed, ns, tick

EVERY_MS = 10
SLOW = 37
"""The image whose way to the link takes longest: nothing of it is special on the other machine."""


class Machines:
    """What one machine has of images that it sends to another one, and what that has of them."""

    def __init__(
        self, count: int, names: tuple[str, str] = ("alpha", "beta"), flow: str = "flow"
    ) -> None:
        over = f"{names[1]}/camera/image"
        camera = Recorded("camera", tick("camera"), ("image",))
        link = Linked(fed(**{over: "camera/image"}))
        detector = Recorded("detector", {"image": Place("image", "camera/image", local=False)})
        for number in range(count):
            at = number * EVERY_MS
            camera.receive("tick", at, at)
            camera.send("image", at + 1, ("tick", at))
            camera.done("tick", at, at + 2)
            link.receive(over, at + 1, at + (9 if number == SLOW else 2))
            # On the second, no image is slower than the one before it.
            detector.receive("image", at + 1, at + 11)
            detector.done("image", at + 1, at + 14 - number / count)
        nodes = ([camera, link], [detector])
        self.stores = {name: stored(each, flow) for name, each in zip(names, nodes, strict=True)}

    def parts(self, machine: str) -> Iterator[Part]:
        """Yield what a machine keeps."""
        for _, whole in self.stores[machine].kept("flow"):
            yield Part(machine, whole())

    def slow(self) -> Part:
        """Return the part of the slow image on alpha."""
        return max(self.parts("alpha"), key=lambda part: part.trace.duration)


def stored(nodes: list[Recorded], flow: str) -> TraceStore:
    joiner, store = Joiner(), TraceStore()
    for node in nodes:
        joiner.add(node.name, node.places, node.hops, 0)
    for tree in joiner.settle(LATER):
        store.add(flow, tree)
    return store


def message(part: Part) -> m.TraceMessage:
    ((_, topic, stamp),) = lacking([part])
    return m.TraceMessage(topic=topic, stamp=stamp)


def test_a_part_that_only_another_machine_would_keep_is_there_when_it_is_asked_for():
    machines = Machines(60)
    slow = machines.slow()
    asked = message(slow)
    assert asked.stamp == ns(SLOW * EVERY_MS + 1)
    before = {part.trace.id for part in machines.parts("beta")}
    (alone,) = (each.trace for each in join([slow, *machines.parts("beta")]) if slow in each.parts)
    assert [(gap.machine, gap.topic, gap.incoming) for gap in alone.gaps] == [
        ("beta", "camera/image", False)
    ]
    assert any("went to beta, whose part" in line for line in waterfall(alone, 100))
    assert problems(alone) == "1 parts missing"
    machines.stores["beta"].keep("flow", [asked, m.TraceMessage(topic="no/topic", stamp=5)])
    parts = [*machines.parts("beta")]
    assert len({part.trace.id for part in parts} - before) == 1
    (whole,) = (each.trace for each in join([slow, *parts]) if slow in each.parts)
    assert whole.path == "camera/tick → camera → detector"
    assert not whole.gaps
    # Asked again, it has it already.
    machines.stores["beta"].keep("flow", [asked])
    assert len([*machines.parts("beta")]) == len(parts)


def test_what_came_before_a_part_is_missing_too_and_its_machine_is_named_if_it_is_known():
    part = next(Machines(3).parts("beta"))
    (alone,) = join([part])
    (gap,) = alone.trace.gaps
    assert (gap.topic, gap.incoming, gap.machine) == ("camera/image", True, "")
    part.trace.origin = m.TraceOrigin(machine="alpha")
    (named,) = join([part])
    assert any("came from alpha, whose part" in line for line in waterfall(named.trace, 100))


@pytest.mark.parametrize("most", [0, 50])
def test_remembered_parts_are_bounded_and_the_oldest_are_forgotten(monkeypatch, most):
    monkeypatch.setattr(linked, "MAX_RECENT", most)
    store = Machines(200).stores["beta"]
    # The last one is, also if it is larger than all may be, for what is kept is made of it.
    count = max(most, 1)
    assert store._linked._size == count
    assert len(store._linked._by_message) == len(store._linked._recent) == count
    assert all(whole().path for _, whole in store.kept("flow"))
    before = len([*store.kept("flow")])
    stamps = [ns(number * EVERY_MS + 1) for number in (5, 199)]
    store.keep("flow", [m.TraceMessage(topic="camera/image", stamp=each) for each in stamps])
    assert len([*store.kept("flow")]) - before == 1


def test_parts_that_were_asked_for_are_displaced_when_they_hold_most():
    store = Machines(200).stores["beta"]
    store._max_bytes = store.bytes + 5000
    for number in range(200):
        store.keep("flow", [m.TraceMessage(topic="camera/image", stamp=ns(number * EVERY_MS + 1))])
        assert store.bytes <= store._max_bytes
    assert store._held["asked"] > 0
