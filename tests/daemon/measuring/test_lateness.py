"""How late nodes are with their timers, from what they count."""

import pytest

from dorad.daemon.broker.readings import Lateness
from dorad.daemon.measuring.measure import TickHistory, Ticks

MS = 1_000_000


def late(node: str, received: int, total: int, diff: int, most: int, missed: int) -> Lateness:
    return Lateness(node, "tick", MS, received, total * MS, diff * MS, most * MS, missed)


def test_a_node_without_timers_has_none() -> None:
    assert TickHistory().ticks("a") is None


def test_missed_ticks_count_from_the_start_and_delays_over_the_window() -> None:
    history = TickHistory(window=2.0)
    history.add(0.0, [late("a", 0, 0, 0, 0, 0)])
    assert history.ticks("a") == Ticks(0, 0.0)
    history.add(1.0, [late("a", 1000, 5000, 5000, 40, 7)])
    history.add(2.0, [late("a", 2000, 5100, 5050, 40, 7)])
    history.add(3.0, [late("a", 3000, 5200, 5100, 40, 7)])
    found = history.ticks("a")
    assert found is not None
    assert (found.missed, found.worst) == (7, 0.04)
    assert found.delay == pytest.approx(0.0001)
    assert found.jitter == pytest.approx(0.00005)


def test_all_timers_of_a_node_give_one_figure() -> None:
    history = TickHistory()
    history.add(0.0, [late("a", 0, 0, 0, 1, 1), late("a", 0, 0, 0, 3, 2)])
    assert history.ticks("a") == Ticks(3, 0.003)


def test_a_removed_node_is_forgotten() -> None:
    history = TickHistory()
    history.add(0.0, [late("a", 0, 0, 0, 0, 0)])
    history.add(1.0, [])
    assert history.ticks("a") is None
