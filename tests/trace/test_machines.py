"""Parts of a trace on several machines become one, by one clock, and no hop is negative."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dorad.control import messages as m
from dorad.dataflow.model import LINK
from dorad.trace.build import as_trace
from dorad.trace.machines import MAX_PARTS, Part, join, lacking, paths
from dorad.trace.model import Place
from dorad.trace.waterfall import waterfall
from tests.trace.recorded import Linked, Recorded, fed, joined, tick

SKEW_MS = 50.0


def two_parts(
    skew_ms: float = 0.0, machines: tuple[str, str] = ("alpha", "beta"), flow: str = "flow"
) -> list[Part]:
    """Return what two machines record of an image: the second clock is ahead by `skew_ms`."""
    over = f"{machines[1]}/camera/image"
    camera = Recorded("camera", tick("camera"), ("image",))
    link = Linked(fed(**{over: "camera/image"}))
    camera.receive("tick", 0, 1)
    camera.send("image", 5, ("tick", 0))
    camera.done("tick", 0, 6)
    link.receive(over, 5, 6)
    detector = Recorded(
        "detector", {"image": Place("image", "camera/image", local=False)}, ("boxes",)
    )
    planner = Recorded("planner", fed(boxes="detector/boxes"))
    detector.receive("image", 5, 8 + skew_ms)
    stamp = max(18 + skew_ms, 5.001)  # timestamps grow, whatever clocks say
    detector.send("boxes", stamp, ("image", 5), at=18 + skew_ms)
    detector.done("image", 5, 19 + skew_ms)
    planner.receive("boxes", stamp, 19 + skew_ms)
    planner.done("boxes", stamp, 22 + skew_ms)
    trees = joined(camera, link), joined(detector, planner)
    return [Part(name, as_trace(tree, flow)) for name, (tree,) in zip(machines, trees, strict=True)]


def with_clock(part: Part, ahead: float | None, margin: float = 0.001) -> Part:
    """Return a part whose link measures how far the sender's clock is ahead, in seconds."""
    origin = m.TraceOrigin(machine="alpha", clock=ahead, margin=margin)
    return part._replace(trace=replace(part.trace, origin=origin))


@pytest.mark.parametrize("skew_ms", [0.0, SKEW_MS, -SKEW_MS])
def test_a_message_over_a_link_is_one_trace_with_one_path(skew_ms):
    alpha, beta = two_parts(skew_ms)
    (whole,) = join([with_clock(beta, -skew_ms / 1e3), alpha])
    trace = whole.trace
    assert trace.path == "camera/tick → camera → detector → planner"
    assert (trace.id, trace.span_count, len(whole.parts)) == (alpha.trace.id, 3, 2)
    spans = {span.node: span for span in trace.spans}
    assert [span.machine for span in trace.spans] == ["alpha", "beta", "beta"]
    assert spans["detector"].sent == pytest.approx(0.005)
    assert spans["detector"].received == pytest.approx(0.008, abs=1e-6)
    assert spans["detector"].parent == trace.spans.index(spans["camera"])
    assert spans["planner"].done - spans["detector"].received == pytest.approx(0.014, abs=1e-6)
    assert trace.duration == pytest.approx(spans["planner"].done)
    clock = trace.clocks["beta"]
    assert clock.offset == pytest.approx(skew_ms / 1e3, abs=1e-6)
    assert clock.measured == pytest.approx(skew_ms / 1e3)
    shown = "\n".join(waterfall(trace, 100))
    assert "clock of beta: " in shown
    assert "on beta" in shown


def test_a_clock_that_was_measured_wrong_is_corrected_until_no_message_comes_too_early():
    alpha, beta = two_parts()
    (whole,) = join([alpha, with_clock(beta, -0.05)])  # by which it would arrive 42 ms too early
    detector = whole.trace.spans[1]
    assert detector.received == pytest.approx(0.006, abs=1e-6)  # when the link has taken it
    clock = whole.trace.clocks["beta"]
    assert (clock.measured, clock.offset) == pytest.approx((0.05, 0.002), abs=1e-6)
    assert any("came too early" in line for line in waterfall(whole.trace, 100))


def test_without_a_measurement_hops_are_only_not_negative():
    alpha, beta = two_parts(-SKEW_MS)
    (whole,) = join([alpha, with_clock(beta, None)])
    assert whole.trace.clocks["beta"].measured is None
    assert whole.trace.spans[1].received >= whole.trace.spans[1].sent


def test_a_part_whose_other_end_is_not_here_stays_one_and_the_message_is_lacking():
    alpha, beta = two_parts()
    stamp = beta.trace.spans[0].stamp
    missing = {("flow", "camera/image", stamp)}
    assert lacking([alpha]) == lacking([beta]) == missing
    assert not lacking([alpha, beta])
    for part in (alpha, beta):
        (alone,) = join([part])
        assert (alone.trace.machine, alone.trace.id) == (part.machine, part.trace.id)
    other = beta._replace(machine="gamma")
    assert len(join([alpha, other])) == 2


def test_figures_of_a_path_over_machines_are_those_of_its_traces():
    alpha, beta = two_parts()
    (whole,) = join([alpha, with_clock(beta, 0.0)])
    slow = replace(whole.trace, id="slow", duration=whole.trace.duration + 1)
    (path,) = paths([whole.trace, slow, alpha.trace])
    assert path.path == whole.trace.path
    assert (path.count, path.worst_id, path.kept_only) == (2, "slow", True)
    assert path.p50 == whole.trace.duration
    assert path.work + path.wait + path.transport == pytest.approx(1.0)


class Visit(NamedTuple):
    """A node on the way of a message; times are ns from one event to the next."""

    machine: int
    transport: int
    work: int
    over_link: int


TIMES = st.integers(0, 50_000_000)
VISITS = st.lists(st.builds(Visit, st.integers(0, 3), TIMES, TIMES, TIMES), min_size=1, max_size=9)
OFFSETS = st.lists(st.integers(-200_000_000, 200_000_000), min_size=4, max_size=4)
BEGIN = 1_700_000_000_000_000_000


class Journey:
    """What machines with clocks of their own keep of one message through many nodes."""

    def __init__(self, visits: list[Visit], offsets: list[int], errors: list[int | None]) -> None:
        self.parts: list[Part] = []
        self.true: dict[str, tuple[int, int]] = {}
        """By node: when it has received and was done."""
        now, stamp = BEGIN, 0
        before: int | None = None
        spans: list[m.Span] = []
        start = 0
        for number, visit in enumerate(visits):
            offset = offsets[visit.machine]
            stamp = max(stamp + 1, now + offsets[visit.machine if before is None else before])
            topic = f"n{number - 1}/out"
            if visit.machine != before:
                if before is not None:
                    now += visit.over_link
                    taken = now + offsets[before] - start
                    way = self._span(topic, LINK, stamp, spans, start, self._sent, taken, taken)
                    way.input = f"m{visit.machine}/{topic}"
                    spans.append(way)
                    self._end(before, spans, start)
                now += visit.transport
                received = now + offset
                # A clock that is ahead makes the joiner believe its own.
                start = received if before is None else min(stamp, received)
                error = None if before is None else errors[number % len(errors)]
                self._origin = None
                if before is not None:
                    clock = None if error is None else (offsets[before] - offset + error) / 1e9
                    self._origin = m.TraceOrigin(machine=f"m{before}", clock=clock)
                spans = []
                sent, remote = start, before is not None
            else:
                now += visit.transport
                sent, remote = self._sent, False
            received = now + offset
            now += visit.work
            made = self._span(
                topic,
                f"n{number}",
                stamp,
                spans,
                start,
                sent,
                received - start,
                now + offset - start,
            )
            made.remote = remote
            spans.append(made)
            self.true[f"n{number}"] = received - offset, now
            self._sent = now + offset
            before = visit.machine
        assert before is not None
        self._end(before, spans, start)

    @staticmethod
    def _span(topic, node, stamp, spans, start, sent, received, done) -> m.Span:
        return m.Span(
            topic=topic,
            node=node,
            input="in",
            sent=(sent - start) / 1e9,
            parent=len(spans) - 1 if spans else None,
            received=received / 1e9,
            done=done / 1e9,
            stamp=stamp,
        )

    def _end(self, machine: int, spans: list[m.Span], start: int) -> None:
        trace = m.Trace(
            id=f"{len(self.parts)}",
            dataflow="flow",
            start=start / 1e9,
            duration=0.0,
            path="",
            span_count=len(spans),
            spans=spans,
            origin=self._origin,
        )
        self.parts.append(Part(f"m{machine}", trace))


NS = 1e-6
"""Times since 1970 in seconds are no more exact than a quarter of a microsecond."""


@given(
    VISITS,
    OFFSETS,
    st.lists(st.none() | st.integers(-300_000_000, 300_000_000), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_whatever_clocks_say_no_hop_is_negative_and_one_machine_keeps_its_differences(
    visits, offsets, errors, random
):
    journey = Journey(visits, offsets, errors)
    shuffled = [*journey.parts]
    random.shuffle(shuffled)
    (whole,) = join(shuffled)
    spans = whole.trace.spans
    assert [span.node for span in spans] == [f"n{number}" for number in range(len(visits))]
    for span in spans:
        assert span.sent <= span.received <= span.done
        if span.parent is not None:
            assert spans[span.parent].received - NS <= span.sent
    by_machine = {}
    for span in spans:
        shift = (whole.trace.start + span.received) - journey.true[span.node][0] / 1e9
        by_machine.setdefault(span.machine, []).append(shift)
    for shifts in by_machine.values():
        assert max(shifts) - min(shifts) <= 4 * NS
    if len(whole.parts) > 1:
        assert whole.trace.duration == pytest.approx(spans[-1].done)


@given(VISITS, OFFSETS)
def test_with_exact_measurements_every_time_is_the_true_one(visits, offsets):
    journey = Journey(visits, offsets, [0])
    (whole,) = join(journey.parts)
    first = offsets[visits[0].machine]
    for span in whole.trace.spans:
        received, done = journey.true[span.node]
        begin = BEGIN / 1e9
        assert whole.trace.start - begin + span.received == pytest.approx(
            (received + first - BEGIN) / 1e9, abs=4 * NS
        )
        assert whole.trace.start - begin + span.done == pytest.approx(
            (done + first - BEGIN) / 1e9, abs=4 * NS
        )


SPANS = st.lists(
    st.tuples(st.sampled_from(["a/x", "b/y"]), st.booleans(), st.integers(0, 3), st.booleans()),
    max_size=4,
)


@given(st.lists(st.tuples(st.sampled_from(["m0", "m1"]), SPANS), max_size=12))
def test_whatever_machines_say_each_part_is_in_one_trace(said):
    parts = []
    for number, (machine, known) in enumerate(said):
        spans = [
            m.Span(
                topic=topic,
                node=LINK if linked else "n",
                input=f"m{stamp % 2}/{topic}",
                sent=0.0,
                received=float(stamp),
                stamp=stamp,
                remote=remote,
            )
            for topic, linked, stamp, remote in known
        ]
        trace = m.Trace(
            id=str(number),
            dataflow="f",
            start=0.0,
            duration=0.0,
            path="",
            span_count=0,
            spans=spans,
        )
        parts.append(Part(machine, trace))
    whole = join(parts)
    assert sorted(part.trace.id for each in whole for part in each.parts) == sorted(
        part.trace.id for part in parts
    )
    for each in whole:
        assert len(each.parts) <= MAX_PARTS
        assert all(span.received is None or span.received >= span.sent for span in each.trace.spans)
