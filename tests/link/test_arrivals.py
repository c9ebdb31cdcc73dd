"""What the session of a link has received is handled in order, and changes the right channels."""

import time
from contextlib import closing
from typing import Any

import msgspec
import pytest
import zenoh

from dorad.link import arrivals as module
from dorad.link import frames
from dorad.link.config import ChannelIn, ChannelOut, LinkConfig
from dorad.link.delivery import NoMemory
from dorad.link.frames import Ack, Content, EventKind, Message, Opening
from dorad.link.greeting import UNANSWERED_S
from dorad.link.hello import Grant, Window
from dorad.link.machine import in_status, out_status
from dorad.link.pace import LineMeter
from dorad.link.reports import MAX_COUNT, ChannelEvent
from dorad.link.session import Received, Seen
from tests.link.twolinks import OUTPUT, QUEUE, FakeLink, Session, TwoLinks
from tests.shm.edge import edge


def settled(*, reliable: bool = False, messages: int = 4) -> TwoLinks:
    links = TwoLinks(reliable=reliable, messages=messages)
    links.settle()
    return links


def received(kind: str, data: bytes, machine: str = "alpha") -> Received:
    return Received(machine, kind, zenoh.ZBytes(data))


class Reporter:
    """The daemon, which takes no more events while `full`."""

    def __init__(self) -> None:
        self.full = False
        self.events: list[ChannelEvent] = []

    def event(self, event: ChannelEvent) -> bool:
        if not self.full:
            self.events.append(event)
        return not self.full


def handle(link: FakeLink) -> bool:
    return link.arrivals.handle_all(0.0)


def test_there_is_nothing_to_do_without_samples_and_without_waiting_messages() -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        beta.arrivals.peers_changed = False
        assert not handle(beta)
        assert not beta.arrivals.handle_data()
        assert not beta.arrivals.peers_changed
        beta.session.unopened = "no route"
        assert not handle(beta)
        assert beta.arrivals.peers_changed, "the reason is to be reported"
        beta.arrivals.peers_changed = False
        handle(beta)
        assert not beta.arrivals.peers_changed


def test_what_comes_from_a_machine_of_no_dataflow_changes_nothing() -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        beta.session.control.append(received("hello", b"x", "gamma"))
        beta.session.seen.append(Seen("gamma", 5, True))
        assert handle(beta)
        assert (beta.channels.machines["alpha"].problem, beta.channels.all_sent) == ("", True)


def test_a_bounded_number_of_samples_is_handled_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BURST", 3)
    with closing(settled(messages=100)) as links:
        links.send(1)
        links.settle()
        beta = links.links["beta"]
        beta.arrivals.peers_changed = False
        for _ in range(4):
            links.send(1)
            links.turn("alpha")
        links.arrive("beta", 100)
        samples = len(beta.session.data)
        assert samples == 4
        assert beta.arrivals.handle_data(), "there is more"
        assert len(beta.session.data) == 1
        assert not beta.arrivals.handle_data()
        links.take()
        assert links.received == [[0, 1, 2, 3, 4]]


def test_an_acknowledgement_is_due_before_the_sender_runs_out_of_credit() -> None:
    with closing(settled(messages=100)) as links:
        beta = links.links["beta"]
        beta.arrivals.peers_changed = False
        links.send(1)
        links.turn("alpha")
        links.arrive("beta", 9)
        assert not beta.arrivals.handle_data()
        links.send(99)
        for _ in range(5):
            links.turn("alpha")
        links.arrive("beta", 99)
        assert beta.arrivals.handle_data()


def test_a_state_that_may_have_changed_is_told_with_the_data() -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        beta.arrivals.peers_changed = True
        assert beta.arrivals.handle_data()


def test_a_frame_that_is_too_large_or_no_frame_opens_all_channels_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("ERROR")  # a kept warning would keep the memory
    large = f"a frame of {frames.MAX_FRAME + 1} bytes"
    for data, problem in ((bytes(frames.MAX_FRAME + 1), large), (b"\xff", "")):
        with closing(settled()) as links:
            beta = links.links["beta"]
            machine = beta.channels.machines["alpha"]
            number = machine.greeting.number
            beta.arrivals.peers_changed = False
            beta.session.data.append(received("data", data))
            handle(beta)
            assert machine.problem.startswith(problem)
            assert machine.problem
            assert beta.arrivals.peers_changed
            assert (machine.greeting.up, machine.greeting.number) == (False, number + 1)
            # Not again before the other end has answered.
            beta.session.data.append(received("data", data))
            handle(beta)
            assert machine.greeting.number == number + 1
            links.settle()
            assert (machine.problem, machine.greeting.up) == ("", True)


def test_a_frame_of_the_largest_size_is_decoded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
    with closing(settled()) as links:
        beta = links.links["beta"]
        beta.session.data.append(received("data", bytes(frames.MAX_FRAME)))
        handle(beta)
        assert " bytes" not in beta.channels.machines["alpha"].problem


def test_an_acknowledgement_goes_to_each_channel_of_its_machine() -> None:
    with closing(settled(reliable=True)) as links:
        alpha, beta = links.links["alpha"], links.links["beta"]
        (out,) = alpha.channels.outs
        links.send(2)
        links.turn("alpha")
        assert (out.channel.idle, alpha.channels.all_sent) == (False, False)
        (into,) = beta.channels.ins.values()
        grant = into.channel.grant
        ack = Ack(Opening(grant.channel, grant.opening, grant.sender or 0), 2, 0)
        alpha.session.control.append(received("ack", frames.encode_ack(ack), "beta"))
        handle(alpha)
        assert out.channel.idle
        assert alpha.channels.all_sent


def test_everything_is_sent_only_when_nothing_is_queued_and_channels_that_ended_do_not_count() -> (
    None
):
    with closing(settled(reliable=True)) as links:
        alpha = links.links["alpha"]
        (out,) = alpha.channels.outs
        assert alpha.channels.all_sent
        links.send(1)
        assert (out.queued(), out.moved(), alpha.channels.all_sent) == (True, True, False)
        alpha.channels.remove(LinkConfig("flow", "alpha"), 0.0)
        assert (out.active, alpha.channels.all_sent) == (False, True)


def test_a_message_without_memory_is_dropped_and_the_next_ones_come(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        monkeypatch.setattr(
            beta.arrivals._delivery, "allocate", lambda size: NoMemory(f"no {size} bytes")
        )
        links.source.push_sample(bytes(5000))
        links.links["alpha"].connection.segments.update(links.source.segments)
        links.send(1)
        links.turn("alpha")
        links.arrive("beta", 9)
        handle(beta)
        warnings = [each.getMessage() for each in caplog.records]
        assert warnings == [f"{OUTPUT}: no 5000 bytes"]
        links.take()
        assert links.received == [[0]]
        (into,) = beta.channels.ins.values()
        assert (into.latencies, into.blocked) == (1, False)


def test_a_message_that_cannot_be_pushed_is_not_taken_for_one_without_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        monkeypatch.setattr(beta.arrivals._delivery, "push", lambda *_: False)
        links.send(1)
        links.turn("alpha")
        links.arrive("beta", 9)
        handle(beta)
        assert not caplog.records
        (into,) = beta.channels.ins.values()
        assert (into.latencies, len(into.channel.arrived)) == (0, 0)


def test_a_blocked_output_is_delivered_when_there_is_room_and_the_bell_is_let_go() -> None:
    with edge(1, blocking=True) as sink, closing(settled()) as links:
        beta = links.links["beta"]
        delivery = beta.arrivals._delivery
        beta.connection.outlets[OUTPUT] = (sink.new_outlet(),)
        links.send(3)
        links.turn("alpha")
        links.arrive("beta", 9)
        handle(beta)
        (into,) = beta.channels.ins.values()
        assert (into.blocked, len(into.channel.arrived)) == (True, 2)
        assert not handle(beta), "there is no room yet"
        unblocked: list[str] = []
        delivery.unblock = unblocked.append  # type: ignore[method-assign]
        assert sink.take() == b"0"
        assert handle(beta)
        assert (into.blocked, len(into.channel.arrived), unblocked) == (True, 1, [OUTPUT])
        assert sink.take() == b"1"
        # Also if something else has come meanwhile.
        beta.session.control.append(received("hello", b"x", "gamma"))
        assert handle(beta)
        assert (into.blocked, len(into.channel.arrived)) == (False, 0)
        assert len(unblocked) == 2
        assert sink.take() == b"2"


def test_the_latency_is_the_average_since_the_last_report_and_never_negative() -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        (into,) = beta.channels.ins.values()
        assert in_status(into).latency_us is None
        now_ns = time.time_ns()
        links.source.push(b"0", b"{}", now_ns - 10_000_000_000)
        links.source.push(b"1", b"{}", now_ns + 10_000_000_000)
        links.sent += 2
        links.settle()
        status = in_status(into)
        assert (status.received, status.queued) == (2, 0)
        assert status.latency_us is not None
        # One of 10 s, and one of a clock ahead.
        assert 5_000_000 <= status.latency_us < 7_000_000
        assert in_status(into).latency_us is None


def test_events_of_a_source_wait_for_the_daemon_in_their_place() -> None:
    with closing(settled()) as links:
        alpha, beta = links.links["alpha"], links.links["beta"]
        reporter = Reporter()
        beta.arrivals._reporter = reporter  # type: ignore[assignment]
        (out,) = alpha.channels.outs
        reporter.full = True
        links.send(1)
        links.turn("alpha")
        out.channel.add_event(EventKind.FAILED, "it broke")
        links.turn("alpha")
        links.send(1)
        links.turn("alpha")
        links.arrive("beta", 9)
        handle(beta)
        links.take()
        assert links.received == [[0]]
        assert not handle(beta)
        reporter.full = False
        assert handle(beta)
        links.take()
        assert links.received == [[0, 1]]
        [event] = reporter.events
        assert (event.name, event.machine, event.event, event.text) == (
            OUTPUT, "alpha", "failed", "it broke",
        )  # fmt: skip


def test_a_machine_whose_dataflow_has_ended_costs_nothing_more() -> None:
    with closing(settled(reliable=True)) as links:
        alpha, beta = links.links["alpha"], links.links["beta"]
        (out,) = alpha.channels.outs
        links.send(2)
        links.turn("alpha")
        machine = alpha.channels.machines["beta"]
        assert machine.grants
        last = beta.channels.machines["alpha"].greeting.hello({}, 0.0, leaving=True)
        alpha.session.control.append(received("hello", last, "beta"))
        handle(alpha)
        assert (machine.greeting.left, machine.grants) == (True, {})
        assert (out.channel.opened, out.channel.idle) == (False, True)
        assert (out.channel.lost, out.channel.uncertain) == (0, 0)
        assert out_status(out).on_the_way == 0


def test_a_link_process_that_has_gone_leaves_no_half_message_in_memory() -> None:
    with closing(settled()) as links:
        beta = links.links["beta"]
        (each,) = beta.channels.ins.values()
        links.send(1)
        links.settle()
        grant, size = each.channel.grant, 1 << 20
        opening = Opening(grant.channel, grant.opening, grant.sender or 0)
        content = Content(1, 5, size, 0, size, 0)
        beginning = Message(opening, 1, 1, content, b"", memoryview(bytes(10)))
        memory = NoMemory("full")
        each.channel.arrive(beginning, lambda _size: memory)
        dropped: list[object] = []
        beta.delivery.drop = dropped.append  # type: ignore[method-assign]
        beta.channels.disconnect(beta.channels.machines["alpha"])
        assert dropped == [memory]
        beta.channels.disconnect(beta.channels.machines["alpha"])
        assert dropped == [memory], "once"


def test_the_channels_of_a_link_process_close_when_it_is_not_seen_any_more() -> None:
    with closing(settled(reliable=True)) as links:
        alpha, beta = links.links["alpha"], links.links["beta"]
        (out,) = alpha.channels.outs
        machine = alpha.channels.machines["beta"]
        alpha.session.seen.append(Seen("beta", beta.incarnation + 1, False))
        handle(alpha)
        assert (out.channel.opened, machine.greeting.up) == (True, True), "it was another one"
        alpha.session.seen.append(Seen("beta", beta.incarnation, False))
        handle(alpha)
        assert (out.channel.opened, machine.greeting.up) == (False, False)
        alpha.session.seen.append(Seen("beta", beta.incarnation, True))
        links.settle()
        assert out.channel.opened


def test_only_a_greeting_that_has_heard_this_process_opens_its_channels() -> None:
    with closing(settled()) as links:
        alpha, beta = links.links["alpha"], links.links["beta"]
        machine = alpha.channels.machines["beta"]
        alpha.channels.disconnect(machine)
        (out,) = alpha.channels.outs
        assert not out.channel.opened
        greeting = beta.channels.machines["alpha"].greeting
        said = msgspec.json.decode(greeting.hello(beta.channels.offer(
            beta.channels.machines["alpha"]), 0.0))  # fmt: skip
        for heard in (None, [alpha.incarnation + 5, 1]):
            alpha.session.control.append(
                received("hello", msgspec.json.encode(said | {"heard": heard}), "beta")
            )
            handle(alpha)
            assert not out.channel.opened
        alpha.session.control.append(received("hello", msgspec.json.encode(said), "beta"))
        handle(alpha)
        assert out.channel.opened


# -- machines


def test_machines_without_a_link_process_are_missing_and_late_ones_ask_for_another_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    incoming = [ChannelIn(f"{each}/out", each, f"{each}/out") for each in ("beta", "gamma")]
    config = LinkConfig("flow", "alpha", incoming=incoming)
    link = FakeLink(config, 1, None, [])
    channels = link.channels
    assert channels.missing(["beta", "gamma"]) == ["beta", "gamma"]
    channels.machines["beta"].greeting.appear(5, 0.0)
    assert channels.missing(["beta", "gamma"]) == ["gamma"]
    assert not channels.check_answers(["beta", "gamma"], 0.0)
    assert not channels.check_answers(["gamma"], UNANSWERED_S)
    assert not caplog.records
    assert channels.check_answers(["beta", "gamma"], UNANSWERED_S)
    assert [each.getMessage() for each in caplog.records] == [
        "no answer from beta: the session is opened again"
    ]
    channels.close()


def test_over_another_session_all_machines_are_greeted_again_and_messages_go_on() -> None:
    with closing(settled(reliable=True)) as links:
        for name, link in links.links.items():
            session: Any = Session()
            link.session = link.arrivals.session = session
            link.channels.reconnect(session)
            for machine in link.channels.machines.values():
                assert machine.session is session
                assert not machine.greeting.heard
                assert not machine.grants
            assert all(not out.channel.opened for out in link.channels.outs), name
        links.cut()
        links.send(3)
        links.settle()
        assert links.received == [[0, 1, 2]]


def test_a_channel_whose_other_end_has_no_receiver_is_named_until_it_has_one() -> None:
    with closing(settled()) as links:
        alpha = links.links["alpha"]
        machine = alpha.channels.machines["beta"]
        (out,) = alpha.channels.outs
        grants = dict(machine.grants)
        alpha.channels.open(machine, {}, is_new=False)
        assert machine.problem == f"beta does not receive {OUTPUT}"
        assert not out.channel.opened
        out.active = False
        alpha.channels.open(machine, {}, is_new=True)
        assert machine.problem == ""
        out.active = True
        alpha.channels.open(machine, grants, is_new=False)
        assert (machine.problem, out.channel.opened) == ("", True)


def test_a_channel_that_is_added_later_opens_at_once_if_its_other_end_was_there_before() -> None:
    with edge(QUEUE) as source:
        link = FakeLink(LinkConfig("flow", "alpha"), 1, source, [])
        into = [ChannelIn("b/out", "beta", "b/out")]
        link.channels.add(LinkConfig("flow", "alpha", incoming=into), 0.0)
        grant = Grant(0, 1, 1, Window(1, 1))
        link.channels.machines["beta"].grants = {OUTPUT: grant}
        sent = [ChannelOut(each, "beta", "x") for each in (OUTPUT, "a/other")]
        link.channels.add(LinkConfig("flow", "alpha", outgoing=sent, incoming=into), 1.0)
        assert [out.channel.opened for out in link.channels.outs] == [True, False]


def test_an_open_channel_stays_open_over_a_greeting_that_is_not_new() -> None:
    with closing(settled(reliable=True)) as links:
        alpha = links.links["alpha"]
        machine = alpha.channels.machines["beta"]
        (out,) = alpha.channels.outs
        links.send(1)
        links.turn("alpha")
        on_the_way = out.channel.on_the_way[0]
        assert on_the_way == 1
        alpha.channels.open(machine, machine.grants, is_new=False)
        assert out.channel.next_sample() is None, "nothing is sent again"
        alpha.channels.open(machine, machine.grants, is_new=True)
        assert out.channel.next_sample() is not None


def test_a_configuration_can_take_a_channel_away_and_give_it_back() -> None:
    with edge(QUEUE) as source:
        sent = [ChannelOut(OUTPUT, "beta", "x")]
        into = [ChannelIn("b/out", "beta", "b/out"), ChannelIn("c/out", "beta", "c/out")]
        config = LinkConfig("flow", "alpha", outgoing=sent, incoming=into)
        link = FakeLink(config, 1, source, [])
        channels = link.channels
        machine = channels.machines["beta"]
        machine.greeting.appear(5, 0.0)
        machine.greeting.hello({}, 1.0)
        assert sorted(channels.ins) == [0, 1]
        assert list(channels.offer(machine)) == ["b/out", "c/out"]
        channels.remove(LinkConfig("flow", "alpha", incoming=into[1:]), 7.0)
        assert (channels.outs[0].active, list(channels.ins)) == (False, [1])
        assert list(channels.offer(machine)) == ["c/out"]
        assert machine.greeting.due_s == 7.0, "the other end is told"
        reliable = [ChannelOut(OUTPUT, "beta", "x", True)]
        channels.add(LinkConfig("flow", "alpha", outgoing=reliable, incoming=into), 9.0)
        (out,) = channels.outs
        assert (out.active, out.spec, out.channel.reliable) == (True, reliable[0], True)
        assert (list(channels.ins), machine.greeting.due_s) == ([1, 2], 9.0)
        channels.add(LinkConfig("flow", "alpha", outgoing=reliable, incoming=into), 11.0)
        assert (len(channels.outs), list(channels.ins)) == (1, [1, 2])
        assert machine.greeting.due_s == 9.0, "there is nothing new"


def test_a_channel_reports_the_rate_and_the_waiting_of_a_queue_that_its_credit_holds_up() -> None:
    now_s = 0.0
    with closing(settled(reliable=True)) as links:
        (out,) = links.links["alpha"].channels.outs
        out.meter = LineMeter(lambda: now_s)
        while out.channel.wants:
            links.send(1)
            links.turn("alpha")
        now_s = 2.0
        status = out_status(out)
        assert status.bytes_per_s == round(out.channel.bytes / 2)
        assert out.channel.bytes == status.bytes_on_the_way > 0
        assert status.wait == 0, "everything was taken"
        links.send(1)
        links.turn("alpha")
        now_s = 4.0
        assert (out_status(out).bytes_per_s, out_status(out).wait) == (0, 100)
        links.settle()
        now_s = 6.0
        out_status(out)
        now_s = 8.0
        assert (out_status(out).bytes_per_s, out_status(out).wait) == (0, 0)


def test_counters_of_a_channel_are_reported_each_in_its_place() -> None:
    with closing(settled(reliable=True)) as links:
        (out,) = links.links["alpha"].channels.outs
        links.send(2)
        links.turn("alpha")
        channel = out.channel
        channel.repeated, channel.lost, channel.uncertain = 3, 4, 5
        status = out_status(out)
        assert (status.name, status.machine, status.open) == (OUTPUT, "beta", True)
        assert (status.sent, status.repeated, status.lost, status.uncertain) == (2, 3, 4, 5)
        assert status.on_the_way == 2
        assert status.bytes_on_the_way == channel.bytes_on_the_way == 2 * len(b"0{}")
        assert out.machine.bytes_on_the_way == status.bytes_on_the_way
        assert status.bytes_on_the_way < MAX_COUNT
