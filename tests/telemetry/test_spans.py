"""From traces to spans: one root, valid ids, parents, links and contexts of others."""

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from dorad.shm.hoplog import Hop
from dorad.shm.layout import HOP_CONTEXT
from dorad.telemetry.exemplars import Exemplars
from dorad.telemetry.resources import Resources
from dorad.telemetry.spans import spans_of
from dorad.trace.build import as_trace
from dorad.trace.join import Joiner
from dorad.trace.model import Place, forget
from tests.trace.recorded import LATER, Recorded, chain, fed, joined, ns, run_chain, tick

FLOW = "u-1"
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


def carry(node: Recorded, output: str, stamp: float, trace: int = TRACE, span: int = SPAN) -> None:
    """Record that the last message of an output carries a context."""
    key = node.hops[-1].place
    words = trace >> 64, trace & (1 << 64) - 1
    node.hops.append(Hop(HOP_CONTEXT, 5, ns(stamp), key, ns(stamp), *words, span))


def spans(*nodes: Recorded) -> list[ReadableSpan]:
    resources = Resources(Resource({"host.name": "arm1"}))
    return [span for tree in joined(*nodes) for span in spans_of(as_trace(tree, FLOW), resources)]


def by_name(found: list[ReadableSpan]) -> dict[str, ReadableSpan]:
    named = {span.name: span for span in found}
    assert len(named) == len(found)
    return named


def parents(found: list[ReadableSpan]) -> dict[str, str | None]:
    names = {span.context.span_id: span.name for span in found}
    return {
        span.name: None if span.parent is None else names.get(span.parent.span_id, "elsewhere")
        for span in found
    }


CHAIN = {
    "receive camera/tick": None,
    "process camera/tick": "receive camera/tick",
    "send camera/image": "process camera/tick",
    "receive camera/image": "send camera/image",
    "process camera/image": "receive camera/image",
    "send detector/boxes": "process camera/image",
    "receive detector/boxes": "send detector/boxes",
    "process detector/boxes": "receive detector/boxes",
}


def test_what_a_node_sends_is_a_child_of_what_it_processes():
    nodes = chain()
    run_chain(nodes, 0)
    found = spans(*nodes)
    assert parents(found) == CHAIN
    assert len({span.context.trace_id for span in found}) == 1
    assert len({span.context.span_id for span in found}) == len(found)
    named = by_name(found)
    process = named["process camera/image"]
    assert (process.start_time, process.end_time) == (ns(7), ns(17.5))
    receive = named["receive camera/image"]
    assert (receive.start_time, receive.end_time) == (ns(5), ns(7))
    send = named["send camera/image"]
    assert send.start_time == send.end_time == ns(5)
    kinds = [each.kind for each in (send, receive, process)]
    assert kinds == [SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.CONSUMER]
    assert process.attributes == {
        "messaging.system": "dora",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "camera/image",
        "messaging.message.body.size": 8,
        "dora.edge.target": "detector/image",
    }
    assert receive.attributes["dora.edge.queue.depth"] == 3
    owners = {name: span.resource.attributes["service.name"] for name, span in named.items()}
    assert owners["send camera/image"] == "camera"
    assert owners["receive camera/image"] == owners["process camera/image"] == "detector"


def test_the_same_trace_has_the_same_ids_whoever_makes_it():
    runs = []
    for _ in range(2):
        nodes = chain()
        run_chain(nodes, 0)
        runs.append([span.context for span in spans(*nodes)])
    assert runs[0] == runs[1]
    assert all(context.is_valid for context in runs[0])


def test_a_dropped_message_and_a_failed_node_are_errors():
    camera = Recorded("camera", {}, ("image",))
    logger = Recorded("logger", fed(image="camera/image"))
    detector = Recorded("detector", fed(image="camera/image"))
    camera.send("image", 0)
    logger.drop("image", 9, 1)
    detector.receive("image", 0, 2)
    joiner = Joiner()
    for node in (camera, logger, detector):
        joiner.add(node.name, node.places, node.hops, 0)
    joiner.process_ended("detector", lambda _thread: True, 0, failed=True)
    (tree,) = joiner.settle(LATER)
    found = spans_of(as_trace(tree, FLOW), Resources(Resource({})))
    errors = {
        (span.name, span.attributes["dora.edge.target"]): span.attributes["error.type"]
        for span in found
        if span.status.status_code is StatusCode.ERROR
    }
    assert errors == {
        ("receive camera/image", "logger/image"): "dropped",
        ("process camera/image", "detector/image"): "failed",
    }
    assert sum(span.parent is None for span in found) == 1


def test_the_other_inputs_of_a_synchronised_set_are_links_into_their_traces():
    left = Recorded("left", tick("left"), ("out",))
    right = Recorded("right", tick("right"), ("out",))
    places = {name: Place(name, f"{name}/out", sync="pair") for name in ("left", "right")}
    pair = Recorded("pair", places)
    for node, at in ((left, 0), (right, 10)):
        node.receive("tick", at, at + 1)
        node.send("out", at + 2, ("tick", at))
        node.done("tick", at, at + 3)
    pair.receive("left", 2, 13)
    pair.receive("right", 12, 13)
    pair.done("right", 12, 15)
    joiner = Joiner()
    for node in (left, right, pair):
        joiner.add(node.name, node.places, node.hops, 0)
    first, second = sorted(joiner.settle(LATER), key=lambda tree: tree.messages[0].stamp)
    resources = Resources(Resource({}))
    before = by_name(spans_of(as_trace(first, FLOW), resources))
    forget(first)  # as the daemon does with the first one
    after = by_name(spans_of(as_trace(second, FLOW), resources))
    (link,) = after["process right/out"].links
    assert link.context == before["send left/out"].context


def test_a_context_that_a_message_brings_is_its_trace_and_its_parent():
    source = Recorded("source", {}, ("out",))
    sink = Recorded("sink", fed(out="source/out"))
    source.send("out", 0)
    carry(source, "out", 0)
    sink.receive("out", 0, 1)
    sink.done("out", 0, 2)
    found = by_name(spans(source, sink))
    assert {span.context.trace_id for span in found.values()} == {TRACE}
    send = found["send source/out"]
    assert (send.parent.trace_id, send.parent.span_id, send.parent.is_remote) == (TRACE, SPAN, True)
    assert len(send.attributes["dora.trace.id"]) == 32


def test_a_context_that_is_only_passed_on_changes_no_parent():
    nodes = chain()
    camera, detector, planner = nodes
    run_chain(nodes, 0)
    camera.hops.insert(
        2, Hop(HOP_CONTEXT, 5, ns(5), 70, ns(5), TRACE >> 64, TRACE & 2**64 - 1, SPAN)
    )
    detector.hops.insert(
        2, Hop(HOP_CONTEXT, 5, 0, 70, ns(17), TRACE >> 64, TRACE & 2**64 - 1, SPAN)
    )
    found = spans(camera, detector, planner)
    assert parents(found) == CHAIN | {"send camera/image": "elsewhere"}
    named = by_name(found)
    # The tick was before the user's span: it stays in a trace of its own, and is linked.
    (link,) = named["send camera/image"].links
    assert link.context == named["process camera/tick"].context
    rest = {s.context.trace_id for name, s in named.items() if "tick" not in name}
    assert rest == {TRACE}


def test_a_span_of_the_user_inside_of_a_node_is_between():
    source = Recorded("source", {}, ("out",))
    work = Recorded("work", fed(out="source/out"), ("made",))
    source.send("out", 0)
    carry(source, "out", 0)
    work.receive("out", 0, 1)
    work.send("made", 3, ("out", 0))
    carry(work, "made", 3, span=77)
    work.done("out", 0, 4)
    made = by_name(spans(source, work))["send work/made"]
    assert (made.context.trace_id, made.parent.span_id) == (TRACE, 77)
    assert not made.links


def test_what_comes_from_another_machine_has_nothing_of_this_one():
    sink = Recorded("sink", {"out": Place("out", "far/out", local=False)})
    sink.receive("out", 0, 1)
    sink.done("out", 0, 2)
    found = by_name(spans(sink))
    assert "host.name" not in found["send far/out"].resource.attributes
    assert found["receive far/out"].resource.attributes["host.name"] == "arm1"
    assert sum(span.parent is None for span in found.values()) == 1


def test_an_exemplar_is_the_slowest_message_of_its_bucket():
    exemplars = Exemplars()
    every = []
    for number, work in enumerate((10.0, 11.0, 10.5, 40.0)):
        nodes = chain()
        run_chain(nodes, number * 1000, work=work)
        every.append(spans(*nodes))
        exemplars.add(every[-1])
    kept = exemplars.of(FLOW, "process", "detector/image")
    assert [round(each.value * 1e3, 3) for each in kept] == [11.5, 40.5]
    assert [each.trace_id for each in kept] == [every[n][0].context.trace_id for n in (1, 3)]
    assert exemplars.of(FLOW, "process", "detector/other") == []
