"""A node in C that is stepped: as nodes in Python, see `tests/node/test_stepping.py`."""

import threading
from pathlib import Path
from typing import Any

from dorad.shm import layout
from dorad.shm.counters import counters
from tests.harness.waiting import wait_until
from tests.libdora.cnode import CNode, P, attached_in_c
from tests.libdora.test_choosing import fake
from tests.node.fakedaemon import DEADLINE_S, FakeDaemon
from tests.node.test_stepping import INPUTS, START, push, step

SYNC = {"sync": {"name": "both", "inputs": ["a", "b"], "tolerance_ns": 5}}


def names(node: CNode) -> list[str]:
    return [name for _, name, _ in iter(node.next, None)]


def test_it_takes_the_oldest_in_its_turn_and_nothing_before(tmp_path: Path, library: Path) -> None:
    daemon = FakeDaemon(tmp_path, dict.fromkeys(INPUTS, 10), {"stepped": True})
    words = daemon.box.words
    found: list[Any] = []
    other = daemon.other(10)
    inlet = other.inlet(other.rings[0])
    with attached_in_c(daemon, library) as node:
        daemon.introduce(other, blocking=False)
        step(daemon, START, held=True)
        for name, number in (("c", 0), ("c", 3), ("b", 1), ("a", 2), ("b", 2)):
            push(daemon, name, START + number)
        assert names(node) == []
        thread = threading.Thread(target=lambda: found.append(node.next(int(DEADLINE_S * 1000))))
        thread.start()
        wait_until(lambda: words[layout.BOX_ASLEEP])
        assert counters(words, daemon.ring("c").base).received == 0
        step(daemon, START + 500)
        thread.join()
        assert [found[0][1], *names(node)] == ["c", "b", "a", "b", "c"]
        assert counters(words, daemon.ring("c").base).latency_sum == 500 + 497
        for _ in range(2):
            assert not node.library.dora_send_output(P(node.context), b"out", 3, b"x", 1)
        assert [taken[0] for taken in iter(inlet.take, None)] == [START + 500, START + 501]
        for value in (layout.COUNT_LIMIT, 1 << 63, (1 << 64) - 1):
            step(daemon, value)
            push(daemon, "a", (1 << 64) - 1)
            push(daemon, "b", 5)
            assert names(node) == ["b", "a"]
        step(daemon, START, held=True)
        push(daemon, "a", START)
        daemon.send("stop", reason="MANUAL")
        assert [kind for kind, _, _ in iter(node.next, None)] == ["STOP", "INPUT"]
    daemon.close()


def test_it_sleeps_beside_a_set_that_lacks_a_member(tmp_path: Path, library: Path) -> None:
    daemon = fake(tmp_path, {"a": SYNC, "b": SYNC}, "c.sock")
    daemon.config["stepped"] = True
    found: list[Any] = []

    def sleeps() -> bool:
        stat = Path(f"/proc/self/task/{thread.native_id}/stat")
        return daemon.box.words[layout.BOX_ASLEEP] == 1 and ") S " in stat.read_text()

    with attached_in_c(daemon, library) as node:
        step(daemon, START)
        push(daemon, "a", START)
        thread = threading.Thread(target=lambda: found.append(node.next(int(DEADLINE_S * 1000))))
        thread.start()
        wait_until(sleeps)
        push(daemon, "b", START + 1)
        step(daemon, START + 1)
        thread.join()
    assert found == [("INPUT", "both", {"a": b"a", "b": b"b"})]
    daemon.close()
