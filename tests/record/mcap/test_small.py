"""Small messages are packed by the extension as by Python, and read back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record.encoding import extras
from dorad.record.encoding.messages import Encoded, direct_kinds, encode_raw
from dorad.record.mcap import layout
from dorad.record.mcap.chunk import SMALL, ChunkBuilder, pack_small_pure
from dorad.record.mcap.items import Item
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.writer import RecordingFile
from dorad.shm import native
from dorad.shm.arrow import UINT8_CODE
from tests.record.files import START, raw

DOUBLE = raw(pa.array([0.5]))[0]
KNOWN = {
    "a/b": (DOUBLE, direct_kinds()[DOUBLE][0], 3),
    "a/bytes": (UINT8_CODE, 1, 65535),
    "dora/tick/a/b": (extras.TICK.kind, 0, 4),
}

sizes = st.sampled_from([0, 1, 8, 127, 128, SMALL, SMALL + 1])
raw_content = st.tuples(
    st.sampled_from([DOUBLE, UINT8_CODE, 99, -1]),
    st.sampled_from([0, 1, 8, 16, 128, SMALL, 1 << 64, -1]),
    st.sampled_from([0, 0, 0, 1, -1]),
    sizes.map(bytes),
    st.sampled_from(
        [b"", b"", b'{"n":1}', b'{"encoding":"mono8"}', bytes(SMALL), bytes(SMALL + 1)]
    ),
)
encoded_content = st.builds(
    Encoded,
    st.sampled_from([extras.TICK.kind, extras.TICK.kind, direct_kinds()[DOUBLE][1]]),
    st.sampled_from([b"", b"head"]),
    sizes.map(bytes),
    st.sampled_from([b"", b"tail", bytes(SMALL)]),
)
plain_content = st.integers(0, 40).map(lambda n: (DOUBLE, n, 0, bytes(8 * n), b""))
items = st.builds(
    Item,
    st.sampled_from([0, START, (1 << 64) - 1]),
    st.sampled_from([*KNOWN, "a/new"]),
    st.sampled_from([0, 1, 1 << 32, 1 << 40]),
    st.one_of(plain_content, raw_content, encoded_content),
)


@pytest.mark.skipif(native.module is None, reason="there is no extension")
@given(st.lists(items, max_size=30), st.integers(0, 3), st.sampled_from([50, 1000, 1 << 20]))
def test_the_extension_packs_the_same_bytes_and_stops_at_the_same_message(
    given_items: list[Item], at: int, room: int
) -> None:
    assert native.module is not None
    found = []
    for pack in (pack_small_pure, native.module.pack_small):
        into = bytearray(b"before")
        known: dict[str, Any] = {topic: (*each, bytearray()) for topic, each in KNOWN.items()}
        end = pack(into, 77, given_items, at, known, room)
        found.append((end, into, [each[3] for each in known.values()]))
    assert found[0] == found[1]


def test_small_messages_of_a_batch_come_back_in_their_order(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "a.mcap", "test", compression="none")
    content = (*raw(pa.array([1.5, 2.5])), b'{"n":7}')
    batch = [Item(START + n, "a/b", n, content) for n in range(100)]
    file.add_raw("a/b", 0, START, *content)
    assert file.add_small(batch, 1, 1 << 20) == 100
    assert file.messages == 100
    file.finish()
    assert file.counts == {"a/b": 100}
    file.close()
    with RecordingReader(tmp_path / "a.mcap") as reader:
        read = [(each.time - START, each.sequence, each.decode()) for each in reader.messages()]
    assert [(time, number) for time, number, _ in read] == [(n, n) for n in range(100)]
    assert all(each.array.to_pylist() == [1.5, 2.5] for *_, each in read)
    assert all(each.metadata == {"n": 7} for *_, each in read)


def test_messages_are_packed_while_there_is_room_before_them() -> None:
    content = (*raw(pa.array([0.5])), b"")
    batch = [Item(START, "a/b", n, content) for n in range(5)]

    def packed(room: int) -> tuple[int, int]:
        into = bytearray()
        known: dict[str, Any] = {topic: (*each, bytearray()) for topic, each in KNOWN.items()}
        return pack_small_pure(into, 0, batch, 0, known, room), len(into)

    (_, size) = packed(1)
    assert [packed(room)[0] for room in (0, 1, size, size + 1, 2 * size)] == [0, 1, 1, 2, 2]


PICTURE_META = b'{"encoding":"mono8"}'


def doubles(count: int, meta: bytes = b"", **fields: int) -> tuple[int, int, int, bytes, bytes]:
    """Return a message of numbers; `fields` are `code`, `length` or `nulls` that it claims."""
    claimed = {"code": DOUBLE, "length": count, "nulls": 0} | fields
    return claimed["code"], claimed["length"], claimed["nulls"], bytes(8 * count), meta


@pytest.mark.parametrize(
    ("topic", "content", "taken"),
    [
        ("a/b", doubles(2), True),
        ("a/b", doubles(0), True),
        ("a/b", doubles(SMALL // 8), True),
        ("a/b", doubles(SMALL // 8 + 1), False),
        ("a/b", doubles(1, bytes(SMALL)), True),
        ("a/b", doubles(1, bytes(SMALL + 1)), False),
        ("a/b", doubles(1, PICTURE_META), False),
        ("a/b", doubles(1, nulls=1), False),
        ("a/b", doubles(1, length=2), False),
        ("a/b", doubles(1, code=UINT8_CODE, length=8), False),
        ("a/new", doubles(1), False),
        ("dora/tick/a/b", Encoded(extras.TICK.kind, b"he", bytes(SMALL - 5), b"ail"), True),
        ("dora/tick/a/b", Encoded(extras.TICK.kind, b"he", bytes(SMALL - 4), b"ail"), False),
        ("dora/tick/a/b", Encoded(direct_kinds()[DOUBLE][1], b"", b"", b""), False),
    ],
)
def test_a_message_is_packed_if_it_is_small_plain_and_of_its_channel(
    topic: str, content: Any, taken: bool
) -> None:
    """What is packed has the bytes that the way for all messages writes."""
    behind = Item(START + 1, "a/b", 7, doubles(1))
    for pack in (pack_small_pure, *(() if native.module is None else (native.module.pack_small,))):
        into = bytearray()
        known: dict[str, Any] = {topic: (*each, bytearray()) for topic, each in KNOWN.items()}
        items = [Item(START, topic, (1 << 32) + 5, content), behind]
        # Nothing behind a message that is not taken is: the order stays.
        assert pack(into, 0, items, 0, known, 1 << 20) == (2 if taken else 0)
        if not taken:
            assert not into
            continue
        builder = ChunkBuilder("none")
        for each in dict.fromkeys((topic, "a/b")):
            builder.declare(KNOWN[each][2], b"")
        for item in items:
            message = item.content
            if not isinstance(message, Encoded):
                message = encode_raw(*message, item.stamp)
            builder.add(KNOWN[item.topic][2], item.sequence, item.stamp, message)
        chunk = builder.finish()
        assert bytes(into) == b"".join(map(bytes, chunk.parts[1:]))
        assert chunk.indexes == b"".join(
            layout.packed_index(KNOWN[each][2], bytes(known[each][3]))
            for each in dict.fromkeys((topic, "a/b"))
        )
