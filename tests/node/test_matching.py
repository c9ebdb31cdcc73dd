"""Matching of messages, compared with an exhaustive search."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.node.choosing import match

times = st.lists(st.integers(0, 60), max_size=8).map(sorted)
unhurried = settings(deadline=None, max_examples=300)


def sets_of(waiting: list[list[int]], tolerance: int) -> tuple[list[list[int]], list[list[int]]]:
    """All sets found in sequence, and the remaining messages, by index."""
    left = [list(enumerate(line)) for line in waiting]
    found = []
    while True:
        matched = match([[stamp for _, stamp in line] for line in left], tolerance)
        left = [line[count:] for line, count in zip(left, matched.passed, strict=True)]
        if not matched.complete:
            return found, [[index for index, _ in line] for line in left]
        found.append([line.pop(0)[0] for line in left])


@unhurried
@given(st.lists(times, min_size=2, max_size=3), st.integers(0, 10))
def test_each_set_is_within_the_tolerance_and_no_message_is_used_twice(
    waiting: list[list[int]], tolerance: int
) -> None:
    found, _ = sets_of(waiting, tolerance)
    for group in found:
        stamps = [line[index] for line, index in zip(waiting, group, strict=True)]
        assert max(stamps) - min(stamps) <= tolerance
    for used in zip(*found, strict=True):
        assert list(used) == sorted(set(used))


@unhurried
@given(st.lists(times, min_size=2, max_size=3), st.integers(0, 10))
def test_no_possible_match_is_skipped_before_the_first_set(
    waiting: list[list[int]], tolerance: int
) -> None:
    """The search finds a set if there is one, and skips only messages that match nothing."""
    matched = match(waiting, tolerance)
    possible = [
        group
        for group in product(*(range(len(line)) for line in waiting))
        if max(w[i] for w, i in zip(waiting, group, strict=True))
        - min(w[i] for w, i in zip(waiting, group, strict=True))
        <= tolerance
    ]
    assert matched.complete == bool(possible)
    if not matched.complete:
        # Messages of an input come in the order of their times.
        for line, count in zip(waiting, matched.passed, strict=True):
            newest = [other[-1] for other in waiting if other]
            assert all(max(newest) - stamp > tolerance for stamp in line[:count])


@unhurried
@given(times.filter(bool), times.filter(bool), st.integers(0, 10))
def test_of_two_candidates_the_nearest_is_matched(
    left: list[int], right: list[int], tolerance: int
) -> None:
    """Neither neighbour of a pair's older half would have been nearer."""
    found, _ = sets_of([left, right], tolerance)
    used = [{pair[side] for pair in found} for side in (0, 1)]
    for a, b in found:
        gap = abs(left[a] - right[b])
        older, line, index = (0, left, a) if left[a] <= right[b] else (1, right, b)
        newer = right[b] if older == 0 else left[a]
        if index + 1 < len(line) and index + 1 not in used[older]:
            assert abs(line[index + 1] - newer) >= gap


@unhurried
@given(st.lists(times, min_size=2, max_size=3), st.integers(0, 10), st.data())
def test_later_messages_do_not_change_a_set_that_cannot_get_tighter(
    waiting: list[list[int]], tolerance: int, data: st.DataObject
) -> None:
    """In sequence, as messages arrive: every set is valid, and the order of sending is kept."""
    arrivals = sorted(
        (stamp, data.draw(st.integers(0, 3)), side)
        for side, line in enumerate(waiting)
        for stamp in line
    )
    queues: list[list[int]] = [[] for _ in waiting]
    before = [-1] * len(waiting)
    for stamp, _, side in arrivals:
        queues[side].append(stamp)
        matched = match(queues, tolerance)
        queues = [line[count:] for line, count in zip(queues, matched.passed, strict=True)]
        if matched.complete:
            group = [line.pop(0) for line in queues]
            assert max(group) - min(group) <= tolerance
            assert all(now >= last for now, last in zip(group, before, strict=True))
            before = group


def test_stereo_frames_with_one_missing() -> None:
    left, right = [0, 33, 66, 100], [1, 67, 99]
    assert sets_of([left, right], 5) == ([[0, 0], [2, 1], [3, 2]], [[], []])
