"""Messages of wrong clocks do not stretch a recording."""

from hypothesis import given
from hypothesis import strategies as st

from dorad.record.mcap.reader import SMALL_BYTES, Recorded, WaitingMessages
from dorad.record.recorder.inputs import MAX_BEHIND_NS, with_plausible_times
from dorad.shm.layout import MAX_AHEAD_NS

NOW = 1_795_000_000 * 10**9
CONTENT = (5, 1, 0, b"x", b"")
words = st.integers(0, (1 << 64) - 1) | st.integers(NOW - 2 * MAX_BEHIND_NS, NOW + 10**9)


def plausible(*stamps):
    copies = [(stamp, number, CONTENT) for number, stamp in enumerate(stamps)]
    found = with_plausible_times(copies, NOW)
    assert [copy[1:] for copy in found] == [copy[1:] for copy in copies]
    return [copy[0] for copy in found]


def test_times_of_one_clock_stay_as_they_are():
    times = [NOW - MAX_BEHIND_NS, NOW - 5, NOW + MAX_AHEAD_NS]
    assert plausible(*times) == times
    for each in ([times[0]], [times[-1]], times):
        copies = [(stamp, 0, CONTENT) for stamp in each]
        assert with_plausible_times(copies, NOW) is copies


def test_a_message_of_another_time_gets_that_of_its_arrival():
    for wrong in (0, 86_400 * 10**9, 2_626_000_000 * 10**9, (1 << 64) - 1):
        assert plausible(NOW - 9, wrong) == [NOW - 9, NOW]
        assert plausible(wrong, wrong) == [NOW, NOW]


def test_messages_stay_in_order_around_one_of_another_time():
    assert plausible(NOW - 9, 0, (1 << 64) - 1, NOW - 7) == [NOW - 9, NOW - 7, NOW - 7, NOW - 7]


@given(st.lists(words, min_size=1))
def test_no_time_of_a_recording_is_far_from_that_of_its_arrival(stamps):
    assert all(-MAX_BEHIND_NS <= each - NOW <= MAX_AHEAD_NS for each in plausible(*stamps))


def message(time, size):
    return Recorded(time, "a/b", 0, None, None, memoryview(bytes(1 << 20))[:size])


def test_messages_that_wait_come_by_time_and_their_chunks_are_counted_once():
    waiting = WaitingMessages()
    assert (bool(waiting), waiting.first, waiting.bytes) == (False, float("inf"), 0)
    late, early, other = message(30, 10), message(10, 20), message(20, 30)
    waiting.put(100, 0, late)
    waiting.put(100, 5, early)
    assert (bool(waiting), waiting.first, waiting.bytes) == (True, 10, 1 << 20)
    waiting.put(200, 0, other)
    assert waiting.bytes == 2 << 20
    assert [waiting.take().time for _ in range(2)] == [10, 20]
    assert waiting.bytes == 1 << 20, "of chunk 100 one waits"
    assert waiting.take().time == 30
    assert (bool(waiting), waiting.bytes) == (False, 0)
    assert not waiting._messages, "nothing is kept of chunks that were read"


def test_a_small_message_does_not_keep_its_chunk_in_memory():
    waiting = WaitingMessages()
    for size, copied in ((SMALL_BYTES, True), (SMALL_BYTES + 1, False)):
        made = message(1, size)
        waiting.put(0, 0, made)
        taken = waiting.take()
        assert taken.data == made.data
        assert (taken.data.obj is not made.data.obj) == copied
