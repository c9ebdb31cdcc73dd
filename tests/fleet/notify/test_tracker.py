"""Which alerts people are told of, as a function of what happens."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorafleet.notify.notification import MAX_GROUPS, as_json
from dorafleet.notify.tracker import (
    CALM_S,
    CLEAR_S,
    GROUP_S,
    MAX_OF_ROBOT,
    PACE_S,
    Tracker,
)
from dorafleet.store.model import MAX_BYTES

from .receivers import alert

T = 1_000_000_000.0


class People:
    """What people know after each notification."""

    def __init__(self, tracker=None):
        self.tracker = tracker or Tracker()
        self.now = T
        self.notifications = []
        self.known = set()

    def see(self, seconds=1.0, **alerts):
        """Let time pass with these alerts by robot: a number of subjects, or their names."""
        found = {
            robot: [alert(str(name)) for name in (range(x) if isinstance(x, int) else x)]
            for robot, x in alerts.items()
        }
        self.see_alerts(seconds, found)

    def see_alerts(self, seconds, found):
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            self.tracker.observe(self.now, found)
            told = self.tracker.take(self.now, f"{len(self.notifications)}", "base")
            if told is not None:
                self.notifications.append(told)
                for each in told.raised:
                    self.known |= {(robot, each.subject) for robot in each.robots}
                for each in told.cleared:
                    self.known -= {(robot, each.subject) for robot in each.robots}

    @property
    def count(self):
        return len(self.notifications)


def names(*given):
    return list(map(str, given))


def test_an_alert_is_told_once_and_its_end_once():
    people = People()
    people.see(300, arm1=names("a"))
    assert people.count == 1
    assert people.notifications[0].raised[0].robots == ["arm1"]
    assert people.notifications[0].open == 1
    people.see(CLEAR_S - 5)
    assert people.count == 1
    people.see(60)
    assert people.count == 2
    assert people.notifications[1].cleared[0].subject == "a"
    assert people.notifications[1].open == 0
    people.see(3 * CALM_S)
    assert people.count == 2


def test_a_hundred_robots_at_once_are_one_notification_with_one_group():
    people = People()
    people.see(60, **{f"arm{number}": names("pick") for number in range(100)})
    (told,) = people.notifications
    (group,) = told.raised
    assert group.count == 100
    assert len(group.robots) == 20
    assert group.robots[:3] == ["arm0", "arm1", "arm2"]
    assert told.text == ("100 raised: arm0, arm1 and 98 more: node gripper failed")


def test_robots_that_alert_one_after_the_other_are_few_notifications():
    people = People()
    for number in range(100):
        people.see(3, **{f"arm{each}": names("pick") for each in range(number + 1)})
    people.see(60, **{f"arm{each}": names("pick") for each in range(100)})
    assert people.count <= 2 + 360 / PACE_S
    assert sum(each.raised[0].count for each in people.notifications) == 100


def test_the_first_alert_is_told_within_seconds():
    people = People()
    people.see(GROUP_S + 1, arm1=names("a"))
    assert people.count == 1


@pytest.mark.parametrize("period", [4, 40, 130, 500])
def test_an_alert_that_flaps_for_a_day_is_told_a_few_times(period):
    people = People()
    for _ in range(86400 // period):
        people.see(period / 2, arm1=names("a"))
        people.see(period / 2)
    assert people.count <= 6
    people.see(2 * CALM_S)
    assert people.known == set()


def test_one_that_gets_worse_is_told_again_and_one_that_gets_better_is_not():
    people = People()
    people.see_alerts(60, {"arm1": [alert("a", "warn")]})
    people.see_alerts(60, {"arm1": [alert("a", "fail")]})
    people.see_alerts(60, {"arm1": [alert("a", "warn")]})
    assert [each.raised[0].severity for each in people.notifications] == ["warn", "fail"]


def test_below_the_severity_nothing_is_told():
    people = People(Tracker("fail"))
    people.see_alerts(60, {"arm1": [alert("a", "warn")]})
    assert people.count == 0
    people.see_alerts(60, {"arm1": [alert("a", "fail")]})
    assert people.count == 1


def test_a_robot_with_alerts_without_end_hides_none_of_another_one_and_they_are_counted():
    people = People()
    people.see(60, arm1=200, arm2=names("a"))
    (told,) = people.notifications
    assert told.omitted == 200 - MAX_OF_ROBOT
    assert any("arm2" in each.robots for each in told.raised)
    for step in range(100):
        people.see(30, arm1=names(*range(step * 200, step * 200 + 200)), arm2=names("a"))
    assert people.tracker.open <= MAX_OF_ROBOT + 1


@pytest.mark.long
def test_a_notification_is_bounded_whatever_robots_say():
    evil = "\u202e\x1b]0;x\x07<!channel> @everyone\n" * 10_000
    people = People()
    people.see_alerts(
        60,
        {
            f"robot{number}": [alert(f"{number} {each} {evil}", "fail", evil) for each in range(20)]
            for number in range(50)
        },
    )
    (told,) = people.notifications
    assert len(told.raised) == MAX_GROUPS
    assert told.omitted == 1000 - MAX_GROUPS
    text = as_json(told).decode()
    assert len(text) < MAX_BYTES / 4
    assert text.isprintable()
    assert "\u202e" not in text
    assert not set("<>@") & set(told.text)


def restart(people):
    """Return the next coordinator's, with what was stored."""
    stored = people.stored
    tracker = Tracker()
    tracker.restore(msgspec.json.decode(msgspec.json.encode(stored), type=type_of_stored()))
    people.tracker = tracker


def type_of_stored():
    from dorafleet.notify.tracker import Told

    return dict[str, list[Told]]


SUBJECTS = st.sets(st.sampled_from(["a", "b", "c"]))
STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 7, 40, 70, 700]),
        st.dictionaries(st.sampled_from(["arm1", "arm2"]), SUBJECTS),
        st.booleans(),
    ),
    max_size=12,
)


@given(STEPS)
def test_in_the_end_people_know_exactly_what_lasts_also_over_restarts(steps):
    people = People()
    people.stored = {}
    lasting = {}
    for seconds, alerts, killed in steps:
        lasting = {robot: sorted(found) for robot, found in alerts.items()}
        people.see(seconds, **lasting)
        people.stored.update(people.tracker.take_unsaved())
        if killed:
            restart(people)
    people.see(2 * CALM_S + PACE_S, **lasting)
    assert people.known == {(robot, each) for robot, found in lasting.items() for each in found}
    assert people.tracker.open == len(people.known)
    before = people.count
    people.stored.update(people.tracker.take_unsaved())
    restart(people)
    people.see(CALM_S, **lasting)
    assert people.count == before


def test_a_clock_that_is_set_back_holds_up_nothing_for_long():
    people = People()
    people.see(60, arm1=names("a"))
    people.now -= 86400
    people.see(PACE_S + GROUP_S + 1, arm1=names("a", "b"))
    assert ("arm1", "b") in people.known
    people.see(CLEAR_S + PACE_S + GROUP_S + 1, arm1=names("a"))
    assert ("arm1", "b") not in people.known
