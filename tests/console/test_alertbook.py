"""Alerts are judged once, on the server: raised, cleared, folded, acknowledged, flapping."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.alertbook import (
    CALM_S,
    CLEARED_AFTER_S,
    FLAPS,
    MAX_OF_ROBOT,
    MAX_PAST,
    RAISED_AFTER_S,
    RETURNS_WITHIN_S,
    AlertBook,
    PastAlertBook,
)
from dorad.control.errors import ControlError
from dorad.control.messages import Alert, Finding, PastAlerts
from dorafleet.cli.main import run_command
from tests.harness.daemon import Daemon


def finding(subject: str = "pick/camera", *, event: bool = False, since: float = 0.0) -> Finding:
    return Finding(
        cause="input-broken" if not event else "node-failed",
        subject=subject,
        text=f"{subject} is wrong",
        severity="fail" if event else "warn",
        since=since,
        event=event,
    )


def test_a_state_is_an_alert_after_two_seconds_and_an_event_at_once() -> None:
    book = AlertBook()
    both = [finding(), finding(event=True)]
    book.observe(0.0, {"arm1": both[:1]})
    assert book.alerts() == []
    book.observe(1.0, {"arm1": both[:1]})
    assert book.alerts() == []
    book.observe(RAISED_AFTER_S, {"arm1": both[:1]})
    assert [alert.cause for alert in book.alerts()] == ["input-broken"]
    book.observe(2.1, {"arm1": both})
    book.observe(2.2, {"arm1": both})
    assert [alert.cause for alert in book.alerts()] == ["node-failed", "input-broken"]


def test_an_alert_is_over_ten_seconds_after_it_was_seen_last() -> None:
    book = AlertBook()
    for now in (0.0, 3.0):
        book.observe(now, {"arm1": [finding()]})
    book.observe(3.0 + CLEARED_AFTER_S - 0.1, {"arm1": []})
    assert len(book.alerts()) == 1
    book.observe(3.0 + CLEARED_AFTER_S, {})
    assert book.alerts() == []


def test_what_comes_and_goes_each_second_is_one_alert_that_flaps() -> None:
    book = AlertBook()
    seen = set()
    for second in range(30):
        book.observe(float(second), {"arm1": [finding()] if second % 2 else []})
        seen |= {alert.id for alert in book.alerts()}
    (alert,) = book.alerts()
    assert seen == {alert.id}
    assert alert.flapping == 14


def test_what_comes_back_within_minutes_becomes_one_alert_that_lasts_until_it_is_calm() -> None:
    book = AlertBook()
    ended: list[Alert] = []
    flapping = []
    for second in range(300):
        wrong = second % 30 < 5
        ended += book.observe(float(second), {"arm1": [finding()] if wrong else []})
        flapping += [alert.flapping for alert in book.alerts()]
    assert [alert.flapping for alert in ended] == [0, 0, 0]
    assert [*dict.fromkeys(flapping)] == [0, *range(FLAPS, 10)]
    last = 274.0
    assert book.observe(last + CALM_S - 0.1, {}) == []
    (alert,) = book.observe(last + CALM_S, {})
    assert alert.flapping == 9
    for now in (0.0, 3.0):
        book.observe(last + CALM_S + RETURNS_WITHIN_S + now, {"arm1": [finding()]})
    assert [alert.flapping for alert in book.alerts()] == [0]


def test_five_robots_with_one_cause_are_one_alert_that_names_them() -> None:
    book = AlertBook()
    robots = {f"arm{n}": [finding(since=float(n))] for n in range(1, 8)}
    for now in (0.0, 3.0):
        book.observe(now, robots)
    (alert,) = book.alerts()
    assert (alert.count, alert.since, alert.id) == (7, 1.0, "*:input-broken:pick/camera")
    assert alert.robots == sorted(robots)
    book.observe(4.0, dict(list(robots.items())[:4]))
    assert len(book.alerts()) == 1, "those that are gone stay for ten seconds"
    book.observe(13.5, dict(list(robots.items())[:4]))
    assert [alert.count for alert in book.alerts()] == [1] * 4


def test_an_alert_and_its_acknowledgement_outlast_a_rollout_and_its_causes_are_no_new_ones() -> (
    None
):
    book = AlertBook()
    for now in (0.0, 3.0):
        book.observe(now, {"arm1": [finding()]})
    book.ack(book.alerts()[0].id, "ana", 103.0)
    for now in range(4, 60):
        found = {"arm1": [finding(), finding("other"), finding(event=True)]}
        assert book.observe(float(now), found, quiet={"arm1"}) == []
    (alert,) = book.alerts()
    assert (alert.acked_by, alert.flapping) == ("ana", 0)
    (over,) = book.observe(80.0, {"arm1": []}, quiet={"arm1"})
    assert over.id == alert.id


def test_a_folded_alert_has_no_figures_of_one_robot() -> None:
    book = AlertBook()
    for number in range(1, 6):
        found = finding(since=-number)
        found.text, found.brief = f"camera/image {number}.1/s, was 10.0/s", "camera/image is slow"
        for now in (0.0, RAISED_AFTER_S):
            book.observe(now, {f"arm{number}": [found]}, unknown=[f"arm{n}" for n in range(6)])
        if number == 4:
            texts = [alert.text for alert in book.alerts()]
            assert texts == [f"camera/image {n}.1/s, was 10.0/s" for n in (1, 2, 3, 4)]
    assert [(alert.text, alert.count) for alert in book.alerts()] == [("camera/image is slow", 5)]


def test_an_alert_that_is_over_is_returned_once_and_kept_with_the_time_of_its_end() -> None:
    book, past = AlertBook(), PastAlertBook()
    for now in (0.0, 3.0, 4.0):
        past.add(book.observe(now, {"arm1": [finding()], "arm2": [finding()]}), 100.0 + now)
    book.ack(book.alerts()[0].id, "ana", 103.0)
    book.observe(5.0, {"arm3": [finding("short")]})
    assert past.latest(10) == []
    for now in (4.0 + CLEARED_AFTER_S, 20.0):
        past.add(book.observe(now, {}), 100.0 + now)
    found = past.latest(10)
    assert [(each.robots, each.until) for each in found] == [(["arm2"], 114.0), (["arm1"], 114.0)]
    assert {each.acked_by for each in found} == {"ana", ""}
    assert past.latest(1) == found[:1]
    assert past.latest(0) == past.latest(-1) == []


def test_an_alert_whose_end_only_the_history_has_is_listed_once_after_a_restart() -> None:
    book, past = AlertBook(), PastAlertBook()
    for now in (0.0, 3.0):
        book.observe(now, {"arm1": [finding(since=90.0)]})
    stored = book.stored()
    past.add(book.observe(20.0, {}), 120.0)
    after, kept = AlertBook(), PastAlertBook()
    after.restore(0.0, stored)
    kept.restore(past.latest(10))
    kept.add(after.observe(CLEARED_AFTER_S, {}), 140.0)
    assert [(each.since, each.until) for each in kept.latest(10)] == [(90.0, 140.0)]


def test_only_the_last_alerts_that_are_over_are_kept() -> None:
    book, past = AlertBook(), PastAlertBook()
    for number in range(MAX_PAST + 5):
        now = number * 100.0
        for at in (now, now + 1.0):
            book.observe(at, {"arm1": [finding(f"n{number}", event=True)]})
        past.add(book.observe(now + 50.0, {}), now)
    found = past.latest(10**20)
    assert len(found) == MAX_PAST
    assert found[0].until == (MAX_PAST + 4) * 100.0


def test_a_robot_does_not_push_out_the_past_alerts_of_others() -> None:
    book, past = AlertBook(), PastAlertBook(3)
    for number in range(10):
        robot = "arm1" if number == 2 else "liar"
        book.observe(number * 100.0, {robot: [finding(f"n{number}", event=True)]})
        book.observe(number * 100.0, {robot: [finding(f"n{number}", event=True)]})
        past.add(book.observe(number * 100.0 + 50.0, {}), float(number))
    assert [each.until for each in past.latest(10)] == [9.0, 8.0, 7.0, 2.0]


def test_an_acknowledgement_lasts_as_long_as_its_alert() -> None:
    book = AlertBook()
    for now in (0.0, 3.0):
        book.observe(now, {"arm1": [finding()]})
    (alert,) = book.alerts()
    assert book.ack(alert.id, "ana", 100.0).acked_by == "ana"
    book.observe(4.0, {})
    book.observe(5.0, {"arm1": [finding()]})
    assert book.alerts()[0].acked_by == "ana", "it has not been away for long"
    assert book.ack(alert.id, "ben", 101.0, undo=True).acked_by == ""
    with pytest.raises(ControlError, match="there is no alert `nonsense`"):
        book.ack("nonsense", "ana", 100.0)


def test_a_folded_alert_is_acknowledged_for_all_its_robots_and_not_for_later_ones() -> None:
    book = AlertBook()
    robots = {f"arm{n}": [finding()] for n in range(5)}
    for now in (0.0, 3.0):
        book.observe(now, robots)
    assert book.ack("*:input-broken:pick/camera", "ana", 1.0).acked_by == "ana"
    robots["arm9"] = [finding()]
    for now in (4.0, 7.0):
        book.observe(now, robots)
    (alert,) = book.alerts()
    assert (alert.count, alert.acked_by) == (6, "")


def test_a_robot_that_is_changed_on_purpose_raises_nothing() -> None:
    book = AlertBook()
    for now in (0.0, 3.0, 6.0):
        book.observe(now, {"arm1": [finding(event=True)]}, quiet={"arm1"})
    assert book.alerts() == []


def test_a_robot_that_makes_up_alerts_without_end_hides_none_of_another_one() -> None:
    book = AlertBook()
    for tick in range(400):
        made_up = [finding(f"s{tick}.{number}", event=True) for number in range(100)]
        found = {"liar": made_up}
        if tick >= 300:
            found["arm1"] = [finding(event=True)]
        book.observe(tick / 2, found)
        count = sum("liar" in alert.robots for alert in book.alerts())
        assert count <= MAX_OF_ROBOT
    assert any(alert.robots == ["arm1"] for alert in book.alerts())
    book.observe(1000.0, {})
    book.observe(1000.0 + CLEARED_AFTER_S, {"liar": [finding(event=True)]})
    book.observe(1001.0 + CLEARED_AFTER_S, {"liar": [finding(event=True)]})
    assert [alert.robots for alert in book.alerts()] == [["liar"]]


def test_alerts_of_the_server_before_count_for_their_robot() -> None:
    before = AlertBook()
    many = [finding(f"s{number}", event=True) for number in range(MAX_OF_ROBOT)]
    for now in (0.0, 1.0):
        before.observe(now, {"liar": many})
    book = AlertBook()
    book.restore(0.0, before.stored())
    for now in (1.0, 2.0):
        book.observe(now, {"liar": [*many, finding("one more", event=True)]})
    assert len(book.alerts()) == MAX_OF_ROBOT
    book.observe(2.0 + CLEARED_AFTER_S, {})
    for now in (13.0, 14.0):
        book.observe(now, {"liar": [finding(f"t{number}", event=True) for number in range(300)]})
    assert len(book.alerts()) == MAX_OF_ROBOT


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 5.0),
            st.sets(st.tuples(st.integers(0, 7), st.integers(0, 1))),
        ),
        max_size=40,
    )
)
def test_an_alert_never_invents_or_forgets_a_finding(
    steps: list[tuple[float, set[tuple[int, int]]]],
) -> None:
    """Each alert was seen within the last ten seconds, or flaps and was within a minute.

    What lasts for two seconds is an alert.
    """
    book, now = AlertBook(), 0.0
    last: dict[tuple[int, int], float] = {}
    began: dict[tuple[int, int], float] = {}
    for pause, present in steps:
        now += pause
        found: dict[str, list[Finding]] = {}
        for robot, subject in present:
            found.setdefault(f"arm{robot}", []).append(finding(f"s{subject}"))
            began.setdefault((robot, subject), now)
            last[robot, subject] = now
        for key in list(began):
            if key not in present:
                del began[key]
        book.observe(now, found)
        alerts = book.alerts()
        flaps = {
            (name, each.id.rpartition(":")[2]): each.flapping > 0
            for each in alerts
            for name in each.robots
        }
        for (robot, subject), flapping in flaps.items():
            at = last[int(robot[3:]), int(subject[1:])]
            assert now - at < (CALM_S if flapping else CLEARED_AFTER_S)
        for (robot, subject), at in began.items():
            if now - at >= RAISED_AFTER_S:
                assert (f"arm{robot}", f"s{subject}") in flaps
        assert len({each.id for each in alerts}) == len(alerts)
        assert all(each.count >= 5 or each.count == 1 for each in alerts)


def test_the_command_lists_alerts_that_are_over(dorad: Daemon, monkeypatch, capsys) -> None:
    def run(*words: str) -> str:
        assert run_command(["alerts", "--past", *words]) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("DORA_SOCKET", str(dorad.paths.control))
    assert run() == "no alerts have ended since the server was started\n"
    assert run("--json") == "[]\n"
    book, past = AlertBook(), PastAlertBook()
    for now in (0.0, 60.0):
        found = {"arm1": [finding(event=True, since=0.0)]} if now == 0.0 else {}
        past.add(book.observe(now, found), 60.0)
        past.add(book.observe(now, found), 60.0)
    answer = PastAlerts(alerts=past.latest(10))
    monkeypatch.setattr("dorad.control.client.Client.past_alerts", lambda _self, limit: answer)
    assert " ".join(run().split()).startswith("WHERE WHAT FROM UNTIL STATE x arm1 pick/camera is")
    assert json.loads(run("--json"))[0]["until"] == 60.0
    assert json.loads(run("--json", "--filter", "arm2")) == []
    assert run_command(["alerts", "--past", "--ack", "x"]) == 2
