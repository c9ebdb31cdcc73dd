"""Health checks as functions of data."""

import pytest

from dorad.daemon.rules.health import Health, Presence, health_after, presence_after
from tests.daemon.fakes import Vitals

BUSY = Vitals(asleep=False, pulse=1)
BEFORE = Health(pulse=1, healthy_at=10)


def healthy(vitals: Vitals) -> bool:
    """Return True if a node that was healthy at 10 is still healthy at 12."""
    return health_after(BEFORE, vitals, 12) == Health(vitals.pulse, 12)


@pytest.mark.parametrize(
    ("vitals", "is_well"),
    [
        (Vitals(asleep=False, pulse=2), True),
        (Vitals(asleep=False, pulse=2, unread=True, queued=9), True),
        (Vitals(asleep=False, pulse=1), False),
        (Vitals(asleep=False, pulse=1, queued=9), False),
        (Vitals(asleep=True, pulse=1), True),
        (Vitals(asleep=True, pulse=1, unread=True), False),
        (Vitals(asleep=True, pulse=1, queued=1), False),
    ],
)
def test_a_node_is_healthy_if_it_moves_or_waits_and_answers(vitals: Vitals, is_well: bool) -> None:
    assert healthy(vitals) is is_well


def test_silence_counts_from_the_last_healthy_check() -> None:
    seen = health_after(BEFORE, BUSY, 12)
    assert seen.silent_for(12.5) == 2.5


def test_the_first_check_finds_every_node_healthy() -> None:
    assert health_after(None, BUSY, 12) == Health(1, 12)


def test_a_process_that_has_dropped_its_node_is_unhealthy_whatever_its_words() -> None:
    for words in (Vitals(connected=False), Vitals(connected=False, asleep=False, pulse=7)):
        assert health_after(BEFORE, words, 12) == BEFORE
    assert health_after(None, Vitals(connected=False), 12).healthy_at == 12


def test_a_sigstopped_node_is_healthy_only_if_it_has_moved() -> None:
    at_rest = Vitals(asleep=True, pulse=1)
    assert health_after(BEFORE, at_rest, 12, sigstopped=True) == BEFORE
    moved = Vitals(asleep=True, pulse=2)
    assert health_after(BEFORE, moved, 12, sigstopped=True) == Health(2, 12)


SINCE = Presence(called_at=10.0)
ASKED = Presence(called_at=10.0, asked_at=15.0)


@pytest.mark.parametrize(
    ("before", "vitals", "expected"),
    [
        (None, BUSY, Presence(12.0)),
        # It waits for input: it would wake.
        (SINCE, Vitals(asleep=True), Presence(12.0)),
        (ASKED, Vitals(asleep=True), Presence(12.0)),
        (SINCE, Vitals(asleep=True, queued=1), SINCE),
        (SINCE, Vitals(asleep=True, unread=True), SINCE),
        (SINCE, Vitals(asleep=False), SINCE),
        # It has read what it was sent.
        (ASKED, Vitals(asleep=False), Presence(12.0)),
        (ASKED, Vitals(asleep=False, unread=True), ASKED),
        (ASKED, Vitals(asleep=True, unread=True), ASKED),
    ],
)
def test_a_node_is_present_if_it_waits_or_has_read_what_it_was_sent(
    before: Presence | None, vitals: Vitals, expected: Presence
) -> None:
    assert presence_after(before, vitals, 12.0, ask_after=5.0) == expected


def test_a_silent_node_is_asked_once_the_time_is_over_and_remains_so() -> None:
    busy = Vitals(asleep=False, unread=True)
    assert not presence_after(SINCE, busy, 14.9, ask_after=5.0).asked_at
    asked = presence_after(SINCE, busy, 15.0, ask_after=5.0)
    assert asked == ASKED
    assert asked.silent_for(15.0) == 5.0
    assert presence_after(asked, busy, 11.0, ask_after=5.0) == ASKED
