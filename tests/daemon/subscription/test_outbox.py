"""Messages for a slow reader are bounded in number and bytes; the oldest are dropped."""

import threading

import pytest

from dorad.daemon.subscription.tasks import Message, Outbox


def _message(topic: str, number: int, size: int = 1) -> Message:
    return Message(topic, {"n": number}, bytes(size))


def _numbers(outbox: Outbox) -> list[tuple[str, int]]:
    outbox.close()
    found = []
    while (message := outbox.get()) is not None:
        found.append((message.topic, message.metadata["n"]))
    return found


def test_messages_keep_their_order() -> None:
    outbox = Outbox(10)
    for number, topic in enumerate("abab"):
        outbox.put(_message(topic, number))
    assert _numbers(outbox) == [("a", 0), ("b", 1), ("a", 2), ("b", 3)]
    assert not outbox.displaced


def test_a_busy_topic_displaces_its_own_messages_only() -> None:
    outbox = Outbox(2)
    outbox.put(_message("b", 0))
    for number in range(1, 6):
        outbox.put(_message("a", number))
    assert _numbers(outbox) == [("b", 0), ("a", 4), ("a", 5)]
    assert outbox.displaced == {"a": 3}


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [([4, 4, 4], [1, 2]), ([4, 9], [1]), ([100], [0]), ([1, 100], [1]), ([5, 5], [0, 1])],
)
def test_bytes_are_bounded_but_the_newest_stays(sizes: list[int], kept: list[int]) -> None:
    outbox = Outbox(10, max_bytes=10)
    for number, size in enumerate(sizes):
        outbox.put(_message("a", number, size))
    assert _numbers(outbox) == [("a", number) for number in kept]
    assert outbox.displaced["a"] == len(sizes) - len(kept)


def test_taken_messages_make_room() -> None:
    outbox = Outbox(1, max_bytes=10)
    for number in range(3):
        outbox.put(_message("a", number, 10))
        assert outbox.get() == _message("a", number, 10)
    assert not outbox.displaced


def test_a_reader_waits_for_a_message_and_for_the_end() -> None:
    outbox = Outbox(1)
    found: list[Message | None] = []

    def read() -> None:
        found.append(outbox.get())
        found.append(outbox.get())

    reader = threading.Thread(target=read)
    reader.start()
    outbox.put(_message("a", 1))
    while not found and reader.is_alive():
        reader.join(0.01)
    outbox.close()
    reader.join(10)
    assert not reader.is_alive()
    assert found == [_message("a", 1), None]
