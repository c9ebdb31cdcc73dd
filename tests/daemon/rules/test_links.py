"""What the daemon believes of links: only reports about channels that it knows."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from dorad.control import messages as m
from dorad.daemon.rules.links import Links
from dorad.dataflow.model import Channel, Link, NodeOutput
from dorad.link import reports
from dorad.link.reports import InStatus, OutStatus, PeerStatus, Status

OUT = Channel(NodeOutput("a", "out"), "beta", receivers=("b",))
IN = Channel(NodeOutput("c", "out"), "gamma")
UP = PeerStatus("up", "", 300)


def sent(name: str = "a/out", machine: str = "beta", count: int = 7) -> OutStatus:
    return OutStatus(name, machine, True, count, 0, 1, 2, 3, 100, 5000, 40)


def received(name: str = "c/out", machine: str = "gamma") -> InStatus:
    return InStatus(name, machine, 5, 2, 400)


def counts(found: Links) -> list[tuple[int, int]]:
    """Return what each channel has sent or received, and lost."""
    return [(each.messages, each.lost) for each in found.channels("uuid", {"c/out": 4})]


def links() -> Links:
    found = Links()
    found.expect(Link((OUT,), (IN,)))
    return found


def test_a_link_is_missing_until_it_is_reported_up() -> None:
    found = links()
    assert [each.partition(" is not")[0] for each in found.missing()] == [
        "the link to beta",
        "the link to gamma",
    ]
    assert found.update(Status({"beta": UP, "gamma": UP}, [], []))
    assert found.missing() == []
    assert not found.update(Status({"beta": UP}, [sent()], [])), "nothing has changed"


def test_the_reason_is_told() -> None:
    found = links()
    found.update(Status({"beta": PeerStatus("refused", "another version"), "gamma": UP}, [], []))
    assert found.missing() == ["the link to beta is not up: another version"]
    found.update(Status({}, [sent()], [received()]))
    assert [each.problem for each in found.channels("uuid", {})] == ["another version", ""]


def test_channels_have_all_that_was_lost() -> None:
    found = links()
    found.update(Status({}, [sent()], [received()]))
    out, into = found.channels("uuid", {"c/out": 2})
    assert (out.output, out.outgoing, out.messages, out.lost, out.queued) == (
        "a/out",
        True,
        7,
        3,
        3,
    )
    assert (into.output, into.lost, into.queued, into.latency_us) == ("c/out", 2, 2, 400)


def test_counts_continue_with_the_next_process_of_a_link_and_with_the_next_daemon() -> None:
    found = links()
    found.process_attached(100)
    found.update(Status({}, [sent(count=7)], [received()]))
    # A daemon that comes back gets the same process again, which does not begin from 0.
    found.process_attached(100)
    found.update(Status({}, [sent(count=7)], [received()]))
    assert counts(found) == [(7, 3), (5, 4)]
    found.process_attached(101)
    assert counts(found) == [(7, 3), (5, 4)]
    found.update(Status({}, [sent(count=2)], [received()]))
    assert counts(found) == [(9, 6), (10, 4)], "the edge has counted all that was lost"
    next_daemon = links()
    next_daemon.restore(json.loads(json.dumps(found.snapshot())))
    next_daemon.update(Status({}, [sent(count=3)], []))
    assert counts(next_daemon) == [(10, 6)]
    next_daemon.process_attached(101)
    assert counts(next_daemon) == [(10, 6)], "it is the same link process"
    next_daemon.expect(Link((), (IN,)))
    next_daemon.expect(Link((OUT,), (IN,)))
    next_daemon.update(Status({}, [sent(count=3)], []))
    assert counts(next_daemon) == [(3, 3)], "a new channel"


def test_a_change_of_the_dataflow_keeps_the_counts_of_the_channels_that_stay() -> None:
    found = links()
    found.process_attached(100)
    found.update(Status({}, [sent(count=7)], [received()]))
    found.process_attached(101)
    more = Channel(NodeOutput("a", "more"), "beta", receivers=("b",))
    found.expect(Link((OUT, more), (IN,)))
    assert counts(found) == [(7, 3), (5, 4)]
    # Nothing of the former process is on the way any more.
    assert [each.queued for each in found.channels("uuid", {})] == [0, 0]
    found.update(Status({}, [sent(count=2)], [received()]))
    assert counts(found) == [(9, 6), (10, 4)]


def test_reports_about_unknown_machines_and_channels_take_no_memory() -> None:
    found = links()
    strange = {f"m{number}": UP for number in range(1000)}
    found.update(Status(strange, [sent("x/y"), sent(machine="delta")], [received("x/y")]))
    assert sorted(found.peers()) == ["beta", "gamma"]
    assert found.channels("uuid", {}) == []


def test_before_any_channel_is_expected_all_reports_are_of_unknown_ones() -> None:
    found = Links()
    assert not found.update(Status({"beta": UP}, [sent()], [received()]))
    assert found.channels("uuid", {}) == []


def test_a_channel_that_comes_back_has_nothing_of_its_earlier_reports() -> None:
    found = links()
    found.update(Status({}, [sent()], [received()]))
    assert counts(found) == [(7, 3), (5, 4)]
    found.expect(Link((OUT,), ()))
    found.expect(Link((OUT,), (IN,)))
    assert counts(found) == [(7, 3)], "the receiving one has not reported since"
    found.expect(Link((), (IN,)))
    found.expect(Link((OUT,), (IN,)))
    assert counts(found) == []


def test_what_is_no_longer_expected_is_forgotten() -> None:
    found = links()
    found.update(Status({"beta": UP}, [sent()], [received()]))
    found.expect(Link((), (IN,)))
    assert sorted(found.peers()) == ["gamma"]
    assert [each.output for each in found.channels("uuid", {})] == ["c/out"]


@pytest.mark.parametrize(
    "report",
    [
        None,
        7,
        {"kind": "what"},
        {"kind": "status", "peers": {"a": {"state": "fine", "reason": ""}}},
        {"kind": "event", "name": "a/out", "machine": "m", "event": "exploded", "text": ""},
        {"kind": "event", "name": "x" * 10_000, "machine": "m", "event": "closed", "text": ""},
        {"kind": "status", "peers": {}, "outgoing": [], "incoming": [{"received": 1 << 70}]},
    ],
)
def test_what_is_no_report_is_refused(report: object) -> None:
    with pytest.raises(ValueError, match="not a report of a link"):
        reports.decode(report)


def test_counts_of_a_link_that_cannot_be_are_still_64_bits() -> None:
    found, largest = links(), (1 << 63) - 1
    for process in (1, 2):
        found.process_attached(process)
        out = OutStatus("a/out", "beta", True, largest, 0, largest, largest, 3, 100)
        found.update(Status({}, [out], []))
    assert counts(found) == [(largest, largest)]


def test_what_the_gate_has_closed_is_known_until_it_is_long_ago() -> None:
    found = links()
    assert found.strangers == ""
    found.update(Status({"beta": UP}, [], [], "connections of strangers that were closed: 7"))
    found.update(Status({}, [sent()], []))
    assert found.strangers == "connections of strangers that were closed: 7"
    found.update(Status({"beta": UP}, [], []))
    assert found.strangers == ""


def test_channels_show_their_use_of_the_line_with_the_queue_before_it() -> None:
    found = links()
    found.update(Status({}, [sent()], [received()]))
    out, into = found.channels("uuid", {}, {"beta/a/out": (4, 9), "gamma/a/out": (1, 1)})
    assert into.line is None
    assert out.line == m.LineUse(
        bytes_per_s=5000,
        bytes_on_the_way=100,
        waiting=4,
        dropped=9,
        wait=40,
        backpressure=False,
    )
    found.expect(Link((replace(OUT, reliable=True),), (IN,)))
    changed, _ = found.channels("uuid", {})
    assert changed.line is not None
    assert changed.line.backpressure
    assert (changed.line.waiting, changed.line.dropped) == (0, 0)


def test_the_use_of_a_line_is_unknown_until_the_present_link_process_reports_it() -> None:
    found = links()
    found.process_attached(1)
    found.update(Status({}, [sent()], []))
    found.process_attached(2)
    assert [each.line for each in found.channels("uuid", {})] == [None]
    earlier = {"name": "a/out", "machine": "beta", "open": True}
    counters = ("sent", "repeated", "lost", "uncertain", "on_the_way", "bytes_on_the_way")
    report = {"outgoing": [earlier | dict.fromkeys(counters, 1)]}
    status = reports.decode({"kind": "status", "peers": {}, "incoming": []} | report)
    assert isinstance(status, Status), "as a link process of an earlier version sends it"
    found.update(status)
    assert [(each.messages, each.line) for each in found.channels("uuid", {})] == [(8, None)]


@pytest.mark.parametrize("bad", [{"wait": 101}, {"wait": -1}, {"bytes_per_s": -1}])
def test_a_report_of_an_impossible_use_is_refused(bad: dict[str, int]) -> None:
    report = {"kind": "status", "peers": {}, "outgoing": [sent()], "incoming": []}
    plain = msgspec.to_builtins(report)
    reports.decode(plain)
    plain["outgoing"][0] |= bad
    with pytest.raises(ValueError, match="not a report"):
        reports.decode(plain)


def test_a_change_of_the_dataflow_forgets_no_link_that_stays() -> None:
    found = links()
    found.update(Status({"beta": UP, "gamma": UP}, [], []))
    found.expect(Link((OUT,), (IN,)))
    assert found.missing() == []


def test_a_machine_that_comes_back_is_unknown_until_it_is_reported_again() -> None:
    found = links()
    found.update(Status({"beta": UP, "gamma": UP, "other": UP}, [sent()], [received()]))
    found.expect(Link((OUT,), ()))
    assert (found.missing(), [*found.peers()]) == ([], ["beta"])
    found.expect(None)
    assert (found.peers(), found.channels("uuid", {})) == ({}, [])
    found.update(Status({"beta": UP, "gamma": UP}, [sent()], [received()]))
    found.expect(Link((OUT,), (IN,)))
    assert len(found.missing()) == 2
    assert found.channels("uuid", {}) == []
