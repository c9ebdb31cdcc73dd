"""Versions of the protocol between nodes and daemons: agreed on, or refused with words."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon import runmodel
from dorad.node import protocol, welcome
from dorad.node.protocol import OLDEST, VERSION
from dorad.node.welcome import say_hello
from dorad.shm import layout
from dorad.shm.layout import agree
from tests.node.fakedaemon import FakeDaemon, in_thread

ranges = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted).map(tuple)


@given(ranges, ranges)
def test_two_ends_agree_on_the_newest_version_that_both_speak(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    both = [n for n in range(10) if one[0] <= n <= one[1] and other[0] <= n <= other[1]]
    assert agree(one, other) == agree(other, one) == max(both, default=None)


@pytest.mark.parametrize(
    ("kept", "adopted"),
    [
        (runmodel.FORMAT, True),
        (json.loads(json.dumps(runmodel.FORMAT)), True),
        ("31786f6261726f64.4.3", False),  # release 0.1
        ([layout.MAGIC, VERSION + 1, runmodel.SNAPSHOT], False),
        ([layout.MAGIC, OLDEST - 1, runmodel.SNAPSHOT], False),
        ([layout.MAGIC, VERSION, runmodel.SNAPSHOT + 1], False),
        ([layout.MAGIC + 1, VERSION, runmodel.SNAPSHOT], False),
        ([layout.MAGIC, str(VERSION), runmodel.SNAPSHOT], False),
        ([], False),
        (None, False),
    ],
)
def test_a_daemon_adopts_nodes_of_the_formats_that_it_speaks(kept: Any, adopted: bool) -> None:
    assert runmodel.can_adopt(kept) is adopted


def test_a_daemon_adopts_nodes_of_the_format_before(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list(runmodel.FORMAT)
    monkeypatch.setattr(protocol, "VERSION", VERSION + 1)
    assert runmodel.can_adopt(kept)
    monkeypatch.setattr(protocol, "OLDEST", VERSION + 1)
    assert not runmodel.can_adopt(kept)


@pytest.mark.parametrize("what", ["welcome", "mailbox"])
def test_a_node_refuses_a_daemon_whose_version_it_does_not_speak(tmp_path: Path, what: str) -> None:
    daemon = FakeDaemon(tmp_path, {})
    other = VERSION + 1
    if what == "mailbox":
        daemon.box.words[layout.BOX_VERSION] = other

    def answer() -> None:
        daemon.accept()
        if what == "mailbox":
            daemon.welcome()
        else:
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
            daemon.send("welcome", fds, version=other)
            for each in fds:
                os.close(each)

    with in_thread(answer) as answered:
        with pytest.raises(RuntimeError, match=f"this node speaks {OLDEST} to {VERSION}"):
            say_hello(daemon.path, "n", dynamic=False)
        answered()
    daemon.close()


def test_a_hello_says_all_versions_that_the_node_speaks(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        protocol.send(theirs, "refused", {"error": "test"}, [])
        with pytest.raises(RuntimeError, match="test"):
            say_hello(ours, "n", dynamic=False)
        packet = protocol.receive(theirs)
    assert packet is not None
    assert (packet.number("version"), packet.number("oldest")) == (VERSION, OLDEST)
    assert VERSION in welcome.SPOKEN
