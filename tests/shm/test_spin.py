"""Adaptive spinning before sleep."""

from dorad.shm.layout import WOULD_HAVE_PAID_NS
from dorad.shm.spin import Spin


def spun(spin: Spin, waits: int, waited_ns: int) -> int:
    """Nanoseconds spun over a number of waits that all end in a block."""
    burnt = 0
    for _ in range(waits):
        burnt += spin.budget_ns
        spin.blocked(waited_ns)
    return burnt


def test_messages_a_millisecond_apart_never_cost_a_spin() -> None:
    assert spun(Spin(50), 10_000, 1_000_000) == 0


def test_a_wait_that_was_mostly_the_wake_up_starts_spinning() -> None:
    spin = Spin(50)
    spin.blocked(40_000)
    assert spin.budget_ns == 50_000


def test_success_keeps_the_whole_budget_after_a_failure() -> None:
    spin = Spin(50)
    spin.blocked(40_000)
    spin.blocked(40_000)
    assert spin.budget_ns == 25_000
    spin.found()
    assert spin.budget_ns == 50_000


def test_spinning_that_never_pays_off_fades_to_almost_nothing() -> None:
    spin = Spin(50)
    waits = 20_000
    burnt = spun(spin, waits, WOULD_HAVE_PAID_NS - 1)
    assert burnt < 0.01 * waits * WOULD_HAVE_PAID_NS


def test_a_limit_of_zero_never_spins() -> None:
    spin = Spin(0)
    assert spun(spin, 100, 10_000) == 0


def test_a_long_wait_without_a_budget_changes_nothing_nor_does_any_with_a_limit_of_zero() -> None:
    """The native wait does not call `blocked` then."""
    fading, never = Spin(50), Spin(0)
    for waited_ns in (0, WOULD_HAVE_PAID_NS - 1, WOULD_HAVE_PAID_NS):
        never.blocked(waited_ns)
        assert (never.budget_ns, never._cooldown, never._penalty) == (0, 0, 1)
    while not fading._cooldown:
        fading.blocked(WOULD_HAVE_PAID_NS - 1)
    before = fading.budget_ns, fading._cooldown, fading._penalty
    fading.blocked(WOULD_HAVE_PAID_NS)
    assert (fading.budget_ns, fading._cooldown, fading._penalty) == before
