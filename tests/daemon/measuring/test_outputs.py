"""Outputs that send too little are found, with their cause, and without false alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from dorad.control.messages import EdgeStats, Finding, NodeInfo, NodeMetrics
from dorad.daemon.broker.readings import EdgeCounters
from dorad.daemon.measuring.measure import taking_part
from dorad.daemon.measuring.outputs import OutputWatch, Slow, causes
from dorad.daemon.measuring.summary import CrashHistory, findings
from dorad.daemon.measuring.troubles import Troubles
from dorad.dataflow.model import LINK
from dorad.dataflow.share import share
from tests.daemon.flows import dataflow
from tests.daemon.flows import node as node_spec

EDGES = (
    ("camera/image", "detector/image"),
    ("detector/boxes", "planner/boxes"),
    ("gripper/state", "planner/state"),
    ("planner/path", "logger/path"),
)
RATE = 10
LEARNT = 75
"""Seconds after which a rate is known."""
SOON = 20
"""Seconds after which an output is slow."""


class Flow:
    """A dataflow whose nodes send at any rate, and the watch of its outputs."""

    def __init__(self, edges: Iterable[tuple[str, str]] = EDGES, known: object = None) -> None:
        self.edges = list(edges)
        self.watch = OutputWatch(known or {})
        self.nodes: dict[str, object] = {
            end.partition("/")[0]: "first process" for edge in self.edges for end in edge
        }
        self.rates: dict[str, int] = {source: RATE for source, _ in self.edges}
        self.limits: dict[str, float] = {}
        self.sent = dict.fromkeys(self.edges, 0)
        self.at = 1000.0

    def run(self, seconds: int, step: float = 1.0) -> list[Slow]:
        """Let the time pass; return what is slow at its end, and check that each second."""
        for _ in range(seconds):
            self.at += step
            for edge in self.edges:
                self.sent[edge] += self.rates[edge[0]]
            self.watch.add(self.at, [*map(self.counters, self.edges)], self.nodes, self.limits)
        return self.watch.slow()

    def counters(self, edge: tuple[str, str]) -> EdgeCounters:
        source, output = edge[0].split("/", 1)
        node, name = edge[1].split("/", 1)
        sent = self.sent[edge]
        return EdgeCounters(source, output, node, name, 10, sent, sent, 0, 0, 0, 0)

    def slow_from(self, rates: Mapping[str, int]) -> list[Slow]:
        self.rates |= rates
        return self.run(SOON)


def stats(edges: Iterable[tuple[str, str]] = EDGES) -> list[EdgeStats]:
    zero = {"queue_size": 1, "sent": 0, "received": 0, "dropped": 0, "queued": 0, "payload": 0}
    rates = {"rate": 0.0, "drop_rate": 0.0, "bandwidth": 0.0, "latency": None, "jitter": None}
    return [
        EdgeStats(dataflow="uuid", source=source, target=target, **zero, **rates)
        for source, target in edges
    ]


def node(name: str, **changed: object) -> NodeInfo:
    fields = {"status": "running", "pid": 1, "restarts": 0, "metrics": NodeMetrics()} | changed
    return NodeInfo(dataflow="uuid", dataflow_name="pick", node=name, **fields)


def found(slow: list[Slow], *nodes: NodeInfo) -> list[Finding]:
    every = nodes or tuple(map(node, ("camera", "detector", "planner", "gripper", "logger")))
    return findings(50.0, every, stats(), [], CrashHistory(), "", {"uuid": Troubles(slow)})


def test_a_slow_camera_is_one_finding_although_all_that_follows_is_slow() -> None:
    flow = Flow()
    assert flow.run(LEARNT) == []
    slow = flow.slow_from({"camera/image": 3, "detector/boxes": 3, "planner/path": 3})
    assert [each.output for each in slow] == ["camera/image", "detector/boxes", "planner/path"]
    (finding,) = found(slow)
    assert finding.text == "camera/image 3.0/s, was 10.0/s"
    assert finding.brief == "camera/image is slower than usual"
    assert (finding.cause, finding.subject) == ("output-slow", "pick/camera")
    assert (finding.severity, finding.dataflow, finding.node) == ("warn", "pick", "camera")
    flow.rates |= dict.fromkeys(flow.rates, RATE)
    assert flow.run(5) == []


def test_outputs_of_one_node_are_one_finding() -> None:
    slow = [Slow("camera/depth", 1.0, 30.0), Slow("camera/image", 3.0, 30.0)]
    (finding,) = found(slow)
    assert finding.text == "camera/depth 1.0/s, was 30.0/s (and 1 more of camera)"


def test_the_output_with_the_most_data_is_named_first() -> None:
    slow = [Slow("camera/exposure", 3.0, 30.0), Slow("camera/image", 3.0, 30.0)]
    exposure, image = stats([("camera/exposure", "logger/light"), EDGES[0]])
    image.payload = 5000
    (first, second), *more = causes(slow, [exposure, image], [])
    assert (first.output, second.output, more) == ("camera/image", "camera/exposure", [])


def test_a_rate_that_changes_a_little_is_told_as_it_was() -> None:
    flow = Flow()
    flow.run(LEARNT)
    (before,) = flow.slow_from({"camera/image": 3})
    assert before.rate == 3
    texts = set()
    for second in range(10):
        flow.rates["camera/image"] = 3 + second % 2
        texts |= {each.rate for each in flow.run(1)}
    assert len(texts) == 1
    flow.rates["camera/image"] = 1
    (now,) = flow.run(10)
    assert now.rate == 1


def test_what_waits_for_a_failed_node_or_a_broken_input_is_not_slow_by_itself() -> None:
    slow = [Slow("planner/path", 0.0, 10.0)]
    (failed,) = found(slow, node("gripper", status="failed", pid=None), node("planner"))
    assert failed.cause == "node-failed"
    broken = node("planner", status="degraded", broken_inputs=["state"])
    (silent,) = found([*slow, Slow("gripper/state", 0.0, 10.0)], node("gripper"), broken)
    assert silent.cause == "input-broken"


def test_a_command_that_changes_a_node_makes_all_that_follows_learn_again() -> None:
    for changed in ("second process", "other timer"):
        flow = Flow()
        flow.run(LEARNT)
        flow.nodes["camera"] = changed
        assert flow.slow_from({"camera/image": 3, "detector/boxes": 3, "planner/path": 3}) == []
        flow.run(LEARNT)
        assert [each.usual for each in flow.slow_from({"planner/path": 1})] == [3.0]


def test_a_command_ends_what_was_slow_and_only_that() -> None:
    flow = Flow()
    flow.run(LEARNT)
    slow = flow.slow_from({"camera/image": 3, "gripper/state": 3})
    assert [each.output for each in slow] == ["camera/image", "gripper/state"]
    flow.nodes["camera"] = "second process"
    assert [each.output for each in flow.run(SOON)] == ["gripper/state"]


def test_a_node_that_is_stopped_and_comes_back_raises_nothing() -> None:
    flow = Flow()
    flow.run(LEARNT)
    process = flow.nodes.pop("camera")
    quiet = {"camera/image": 0, "detector/boxes": 0, "planner/path": 0}
    assert flow.slow_from(quiet) == []
    flow.nodes["camera"] = process
    assert flow.slow_from(dict.fromkeys(quiet, RATE)) == []


def test_nothing_is_known_of_an_output_that_nobody_receives() -> None:
    flow = Flow()
    flow.run(LEARNT)
    del flow.nodes["logger"]
    assert flow.slow_from({"planner/path": 0}) == []
    flow.nodes["logger"] = "second process"
    assert flow.slow_from({"planner/path": RATE}) == []


def test_another_receiver_is_enough() -> None:
    flow = Flow([*EDGES, ("camera/image", "logger/image")])
    flow.run(LEARNT)
    del flow.nodes["detector"]
    (slow,) = flow.slow_from({"camera/image": 3, "detector/boxes": 0})
    assert slow.output == "camera/image"


def test_a_machine_that_slept_is_not_slow() -> None:
    flow = Flow()
    flow.run(LEARNT)
    flow.run(1, step=300.0)
    assert flow.run(SOON) == []


def test_a_rate_that_the_release_demands_counts_from_the_beginning() -> None:
    flow = Flow()
    flow.limits = {"camera/image": 25.0, "gripper/state": 0.0}
    slow = flow.run(SOON)
    (finding,) = found(slow)
    assert finding.text == "camera/image 10.0/s, below 25/s"
    assert finding.brief == "camera/image below 25/s"
    flow.run(LEARNT)
    quiet = flow.slow_from({"camera/image": 30, "gripper/state": 0})
    assert quiet == []


def test_the_next_daemon_goes_on_with_what_is_known() -> None:
    flow = Flow()
    flow.run(LEARNT)
    flow.slow_from({"camera/image": 3})
    following = Flow(known=flow.watch.snapshot())
    following.rates["camera/image"] = 3
    assert following.run(1) == [Slow("camera/image", 3.0, 10.0)]
    assert following.run(SOON) == [Slow("camera/image", 3.0, 10.0)]
    (other,) = [each for each in following.slow_from({"gripper/state": 0}) if each.rate == 0]
    assert other.output == "gripper/state"


def test_an_output_of_another_machine_has_the_name_of_its_node() -> None:
    edges = [(f"{LINK}/camera/image", "detector/image"), EDGES[1]]
    flow = Flow(edges)
    flow.nodes |= {LINK: "link", "camera": "link"}
    flow.run(LEARNT)
    slow = flow.slow_from({edges[0][0]: 0, "detector/boxes": 0})
    (first,) = causes(slow, stats(edges), [])
    assert [each.output for each in first] == ["camera/image"]


def test_a_node_of_another_machine_that_has_ended_is_not_slow_nor_what_follows_from_it() -> None:
    flow = Flow([(f"{LINK}/camera/image", "detector/image"), *EDGES[1:]])
    flow.nodes |= {LINK: "link", "camera": "link"}
    flow.limits["camera/image"] = 5.0
    flow.run(LEARNT)
    flow.rates |= {f"{LINK}/camera/image": 0, "detector/boxes": 1, "gripper/state": 1}
    # It has ended; see `taking_part`.
    del flow.nodes["camera"]
    assert [each.output for each in flow.run(SOON)] == ["gripper/state"]


def test_nodes_of_other_machines_take_part_until_they_end_or_the_link_does() -> None:
    whole = dataflow(node_spec("a"), node_spec("d"), node_spec("b", x="a/out", y="d/out"))
    flow = share(whole, "m", {"a": "n", "d": "n", "b": "m"})
    connected = {LINK, "b"}
    views = {each: SimpleNamespace(pid=1) for each in connected}
    run = SimpleNamespace(
        dataflow=flow,
        broker=SimpleNamespace(stats=SimpleNamespace(connected=lambda: connected)),
        supervisor=SimpleNamespace(
            statuses=lambda: views, has_ended_elsewhere=lambda output: output == "d/out"
        ),
    )
    edges = [
        EdgeCounters(LINK, output, "b", "x", 10, 0, 0, 0, 0, 0, 0) for output in ("a/out", "d/out")
    ]
    assert taking_part(SimpleNamespace(params={}), run, edges).keys() == {LINK, "a", "b"}
    connected.remove(LINK)
    assert taking_part(SimpleNamespace(params={}), run, edges).keys() == {"b"}


NAMES = st.sampled_from("abcdefgh")


@given(
    slow=st.sets(NAMES),
    edges=st.sets(st.tuples(NAMES, NAMES), max_size=20),
    blamed=st.sets(NAMES, max_size=2),
)
def test_every_slow_node_follows_a_cause_and_no_cause_follows_another(
    slow: set[str], edges: set[tuple[str, str]], blamed: set[str]
) -> None:
    outputs = [Slow(f"{name}/out", 0.0, 10.0) for name in slow]
    named = stats([(f"{source}/out", f"{target}/in") for source, target in edges])
    roots = {each[0].output[0] for each in causes(outputs, named, blamed)}
    reached = roots | blamed
    while new := {b for a, b in edges if a in reached and b in slow} - reached:
        reached |= new
    assert roots <= slow - blamed
    assert slow <= reached
    for root in roots:
        behind = {root}
        while new := {b for a, b in edges if a in behind and b in slow} - behind:
            behind |= new
        assert behind & roots == {root}
