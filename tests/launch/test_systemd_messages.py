"""Messages of D-Bus in a stream: only trusted senders are parsed, however it is split."""

import random
import tracemalloc
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, new_method_return, new_signal

from dorad.launch.systemd.messages import (
    MAX_MESSAGE,
    BusError,
    Inbox,
    ProtocolError,
    method_call,
    values_of,
)

TRUSTED, STRANGER = ":1.1", ":1.66"


def message(sender: str, text: str = "", serial: int = 1) -> bytes:
    made = new_signal(DBusAddress("/a", interface="a.b"), "Signal", "sv", (text, ("u", 7)))
    made.header.fields[HeaderFields.sender] = sender
    return bytes(made.serialise(serial))


def inbox() -> Inbox:
    return Inbox(lambda sender: sender == TRUSTED)


def texts(box: Inbox, data: bytes) -> list[Any]:
    return [values_of(each) for each in box.feed(data)]


def test_only_messages_of_trusted_senders_are_parsed_however_the_stream_is_split() -> None:
    chance = random.Random(3)
    stream, expected = b"", []
    for number in range(300):
        sender = chance.choice([TRUSTED, STRANGER])
        text = "x" * chance.choice([0, 1, 7, 300, 5000])
        stream += message(sender, f"{number} {text}")
        if sender == TRUSTED:
            expected.append([f"{number} {text}", 7])
    for _ in range(10):
        box, found, rest = inbox(), [], stream
        while rest:
            cut = chance.choice([1, 3, 16, 100, 4000, 20000])
            found += texts(box, rest[:cut])
            rest = rest[cut:]
        assert found == expected


def test_messages_of_others_are_not_buffered() -> None:
    box = inbox()
    piece = b"x" * (1 << 16)
    stranger = message(STRANGER, "x" * (8 << 20))
    head, _, _ = stranger.partition(b"xxxx")
    tracemalloc.start()
    assert texts(box, head) == []
    for _ in range((len(stranger) - len(head)) // len(piece)):
        assert texts(box, piece) == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20
    rest = (len(stranger) - len(head)) % len(piece)
    assert texts(box, piece[:rest] + message(TRUSTED, "after")) == [["after", 7]]


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 0xFFFFFF00])
def test_a_message_that_is_too_long_is_skipped(size: int) -> None:
    box = inbox()
    long = bytearray(message(TRUSTED, "long"))
    long[4:8] = size.to_bytes(4, "little")
    assert texts(box, bytes(long)) == []
    assert texts(box, message(TRUSTED, "inside of it")) == []


def test_messages_with_malformed_headers_are_skipped() -> None:
    chance = random.Random(5)
    good = message(TRUSTED, "good")
    end = len(message(TRUSTED)) - 20
    for _ in range(3000):
        bad = bytearray(message(STRANGER, "bad"))
        for _ in range(chance.randint(1, 4)):
            # The bus itself has checked the lengths.
            place = chance.choice([*range(1, 4), *range(8, 12), *range(16, end)])
            bad[place] = chance.randrange(256)
        try:
            found = texts(inbox(), bytes(bad) + good)
        except BusError:
            continue  # it is an error without a call
        assert found[-1:] == [["good", 7]]
        assert len(found) == 1


def test_a_malformed_answer_is_an_error_for_its_caller() -> None:

    call = new_signal(DBusAddress("/a", interface="a.b"), "Signal")
    call.header.serial = 5
    answer = new_method_return(call, "s", ("text",))
    answer.header.fields[HeaderFields.sender] = TRUSTED
    raw = bytearray(answer.serialise(9))
    raw[-1] = 1  # texts end with 0
    (found,) = inbox().feed(bytes(raw))
    assert found.header.fields[HeaderFields.reply_serial] == 5
    with pytest.raises(BusError, match="its answer cannot be read"):
        values_of(found)


def test_bytes_that_are_not_dbus_end_the_connection() -> None:
    with pytest.raises(ProtocolError, match="begins with"):
        texts(inbox(), b"GET / HTTP/1.1\r\n\r\n")


def test_lists_stand_for_structures_and_arrays() -> None:
    properties = [
        ("ExecStartEx", ("a(sasas)", [["/bin/a", ("/bin/a", "b"), ["no-env-expand"]]])),
        ["LogExtraFields", ("aay", [b"A=1"])],
        ("Map", ("a{sv}", {"x": ("u", 1)})),
    ]
    raw, fds = method_call(1, "a.b", "/a", "a.b", "Call", "a(sv)h", [properties, 2])
    assert fds == [2]

    read = values_of(Message.from_buffer(raw, fds=[2]))
    assert read == [
        [
            ["ExecStartEx", [["/bin/a", ["/bin/a", "b"], ["no-env-expand"]]]],
            ["LogExtraFields", [b"A=1"]],
            ["Map", {"x": 1}],
        ],
        2,
    ]
