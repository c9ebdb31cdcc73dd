"""Circuit breakers of silent inputs as functions of data."""

from dorad.daemon.rules.breaker import Breaker


def after(*checks: tuple[int, float]) -> list[bool]:
    """Return whether an input (timeout 2 s) is broken after each check (sent so far, time)."""
    breaker, found = Breaker(2.0), []
    for sent, now in checks:
        breaker = breaker.check(sent, now)
        found.append(breaker.broken)
    return found


def test_an_input_that_never_had_a_message_never_breaks() -> None:
    assert after((0, 0), (0, 100)) == [False, False]
    assert Breaker(2.0).check(0, 5).due is None


def test_silence_breaks_it_when_the_timeout_has_passed() -> None:
    assert after((1, 0), (1, 1.9), (1, 2.0)) == [False, False, True]


def test_each_message_restarts_the_timeout() -> None:
    assert after((1, 0), (2, 1.9), (2, 3.8), (2, 3.9)) == [False, False, False, True]


def test_the_next_message_recovers_the_input_and_restarts_the_timeout() -> None:
    assert after((1, 0), (1, 2), (2, 9), (2, 10.9), (2, 11)) == [False, True, False, False, True]


def test_the_breaker_reports_when_it_is_due() -> None:
    breaker = Breaker(2.0).check(1, 5)
    assert breaker.due == 7
    assert breaker.check(1, 7).due is None


def test_messages_before_the_first_check_count_as_received_then() -> None:
    assert after((50, 100), (50, 101), (50, 102)) == [False, False, True]
