"""What commands show of outputs that share the line to another machine."""

from typing import Any

import pytest

from dorad.cli.lineuse import Lines
from dorad.control.messages import LineUse, LinkChannel

IDLE: dict[str, Any] = {
    "bytes_per_s": 0,
    "bytes_on_the_way": 0,
    "waiting": 0,
    "dropped": 0,
    "wait": 0,
    "backpressure": False,
}


def link(output: str, machine: str = "beta", problem: str = "", **use: Any) -> LinkChannel:
    return LinkChannel(
        output=output,
        machine=machine,
        outgoing=True,
        messages=9,
        lost=0,
        queued=0,
        problem=problem,
        line=LineUse(**IDLE | use),
    )


def text(first: LinkChannel, *others: LinkChannel) -> list[str]:
    return list(Lines([first, *others]).text(first))


CAMERA = link("camera/image", bytes_per_s=75_000, wait=97, waiting=4, dropped=118)
STATE = link("arm/state", bytes_per_s=25_000, wait=60, backpressure=True, bytes_on_the_way=1234)


def test_an_output_that_flows_shows_its_rate_and_what_the_link_holds() -> None:
    assert text(link("a/out", bytes_per_s=250_000)) == [
        "sends 2.00 Mbps, 100% of what is sent there",
        "0.0 kB on the way; at the link 0 messages wait, 0 dropped",
    ]


def test_an_output_that_a_slow_line_holds_up_names_those_that_share_it() -> None:
    assert text(CAMERA, STATE, link("idle/out")) == [
        "sends 0.60 Mbps, 75% of what is sent there",
        "0.0 kB on the way; at the link 4 messages wait, 118 dropped",
        "the line is slow and shared with arm/state (25%): messages wait for it 97% of the time",
    ]


def test_backpressure_beside_an_output_that_the_line_holds_up_waits_for_the_line() -> None:
    assert text(STATE, CAMERA)[1:] == [
        "1.2 kB on the way; at the link 0 messages wait, 0 dropped",
        "the line is slow and shared with camera/image (75%): messages wait for it 60% of the time",
    ]


def test_backpressure_alone_may_wait_for_the_nodes_there() -> None:
    lines = Lines([STATE])
    assert list(lines.text(STATE))[2:] == [
        "the line, or what receives there, is slow: messages wait for it 60% of the time"
    ]
    shown = lines.as_json(STATE)
    assert shown is not None
    assert (shown["slow_line"], shown["wait_percent"]) == (False, 60)
    beside = Lines([STATE, CAMERA]).as_json(STATE)
    assert beside is not None
    assert (beside["slow_line"], beside["share_percent"]) == (True, 25.0)


@pytest.mark.parametrize("other", [{"dataflow": "x"}, {"reporter": "x"}, {"machine": "x"}])
def test_outputs_of_other_dataflows_and_to_other_machines_share_no_line(
    other: dict[str, str],
) -> None:
    away = link("camera/image", bytes_per_s=75_000, wait=97)
    for key, value in other.items():
        setattr(away, key, value)
    assert Lines([STATE, away]).share(STATE) == 100
    assert "camera" not in "".join(text(STATE, away))


def test_the_largest_of_many_that_share_a_line_come_first() -> None:
    others = [link(f"n{number}/out", bytes_per_s=1000 * number) for number in range(1, 6)]
    assert text(link("a/out", wait=50), *others)[2] == (
        "the line is slow and shared with n5/out (33%), n4/out (27%), n3/out (20%) and 2 more: "
        "messages wait for it 50% of the time"
    )


def test_without_a_link_nothing_is_called_slow() -> None:
    assert len(text(link("a/out", problem="no route", wait=100))) == 2


def test_a_link_that_does_not_report_its_use_shows_nothing() -> None:
    old = link("a/out")
    old.line = None
    assert (text(old, CAMERA), Lines([old]).as_json(old), Lines([old]).share(old)) == (
        [],
        None,
        None,
    )
    assert Lines([old, CAMERA]).share(CAMERA) == 100


def test_a_rate_that_cannot_be_counts_as_none() -> None:
    assert Lines([CAMERA, link("bad/out", bytes_per_s=-(1 << 60))]).share(CAMERA) == 100
