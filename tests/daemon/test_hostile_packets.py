"""The dataflow of a malicious node can be inspected and stopped, and others keep running."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.control.errors import ControlError
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import counting, seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

HOSTILE = """
    import socket, time
    from dora import Node
    from dorad.node import connection

    # What a node says with its own socket, past its library.
    made = []
    connect = connection.DaemonConnection.__init__
    def remember(self, *args, **kwargs):
        connect(self, *args, **kwargs)
        made.append(self)
    connection.DaemonConnection.__init__ = remember

    node = Node()
    sock = socket.socket(fileno=made[0].descriptor)
    for _ in range(20):
        sock.send(b'{"t":"note","text":"half \\\\ud800 a character"}')
    open("output", "w").close()
    time.sleep(600)
"""


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def hostile(folder: Path, program: str = HOSTILE) -> Path:
    return write_flow(
        folder,
        [{"id": "bad", "path": "bad.py", "inputs": {"tick": "dora/timer/secs/1"}}],
        bad=program,
    )


def test_a_dataflow_whose_node_sends_half_a_character_can_be_stopped(
    dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", counting(tmp_path / "good"), "--name", "good", "--detach")
    dorad.dora_ok("start", hostile(tmp_path / "bad"), "--name", "bad", "--detach")
    wait_until(lambda: (tmp_path / "bad" / "output").exists())
    with dorad.client() as client:
        wait_until(lambda: client.node_info("bad", dataflow="bad").notes)
        assert client.node_info("bad", dataflow="bad").notes == ["half ? a character"]
    stopped = dorad.dora("stop", "bad", "--grace-duration", "1s")
    assert "internal" not in stopped.stdout + stopped.stderr
    rows = map(json.loads, dorad.dora_ok("list", "-f", "json").splitlines())
    assert {row["name"]: row["status"] for row in rows}["bad"] in ("Finished", "Failed")
    before = len(seen(tmp_path / "good"))
    wait_until(lambda: len(seen(tmp_path / "good")) > before + 5)


def test_no_client_gets_an_internal_error_while_dataflows_end(
    dorad: Daemon, tmp_path: Path
) -> None:
    file = counting(tmp_path)
    errors: list[ControlError] = []
    over = threading.Event()
    answers = [0]

    def look() -> None:
        with dorad.client() as client:
            while not over.is_set():
                for ask in (client.nodes, client.top, client.list):
                    try:
                        ask()
                        answers[0] += 1
                    except ControlError as error:
                        errors.append(error)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for each in lookers:
        each.start()
    try:
        for number in range(3):
            dorad.dora_ok("start", file, "--name", f"flow{number}", "--detach")
            dorad.dora_ok("stop", f"flow{number}")
    finally:
        over.set()
        for each in lookers:
            each.join()
    assert [str(error) for error in errors] == []
    assert answers[0] > 100
