"""Hostile words in a mailbox: no method of the daemon raises or loops forever."""

import random
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dorad.daemon.broker.mailbox import Mailbox, NoRoomError
from dorad.daemon.broker.snapshot import MailboxSnapshot
from dorad.dataflow.model import Input, LogSource, NodeOutput, QueuePolicy, Timer
from dorad.shm import latencies, layout
from dorad.shm.counters import counters
from dorad.shm.layout import ENTRY
from tests.daemon.clients import Program, stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

INPUTS = (
    Input("x", NodeOutput("a", "out"), 10),
    Input("waits", NodeOutput("a", "out"), 3, QueuePolicy.BACKPRESSURE),
    replace(Input("last", NodeOutput("a", "out"), 5), latched=True),
    Input("tick", Timer(10**7)),
    Input("logs", LogSource(), 4),
)
NODE = replace(node("b"), inputs=INPUTS)
EXTREMES = (0, 1, 2, 3, 7, 64, 255, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)


def corrupt(box: Mailbox, chance: random.Random) -> None:
    words = box._mapping.words
    magic = words[layout.BOX_MAGIC]
    everything = chance.random() < 0.3
    value = chance.choice(EXTREMES)
    for at in range(box._end // 8):
        if everything:
            words[at] = value
        elif chance.random() < 0.5:
            words[at] = chance.choice(EXTREMES) if chance.random() < 0.7 else chance.getrandbits(64)
    words[layout.BOX_MAGIC] = magic


def use(box: Mailbox, name: str) -> None:
    """Call everything that the daemon does with a mailbox."""
    for ring in list(box.rings):
        msgspec.json.encode(box.counters(ring))
        box.segments_of(box.rings[ring])
        msgspec.json.encode(latencies.percentiles(box.latencies(ring)))
    msgspec.json.encode(list(box.lateness()))
    assert len(box.read_hops()) <= layout.HOPS
    msgspec.json.encode(box.unread_hops)
    msgspec.json.encode(box.skip_hops())
    msgspec.json.encode(box.hops)
    msgspec.json.encode(box.vitals(connected=True))
    box.hazards()
    box.clear_hazards()
    box.mail_sent(box.mail + 1)
    box.step(5, held=True)
    box.attach()
    for ring in ("logs", "last"):
        outlet = box.outlet(ring)
        entry = ENTRY.pack(1, 1, 0, 8, 0, 0, 0, 0, 0, 100, 0, 0) + bytes(8)
        index = outlet.push(entry, 8, 1)
        outlet.done_with(index, 5)
        outlet.last_ns()
        outlet.newest()
    box.detach()
    box.discard_queued()
    try:
        box.add_ring(name, INPUTS[0])
    except NoRoomError:
        pass
    else:
        box.unlatch(name)
        box.recycle(name)
    msgspec.json.encode(box.snapshot())


@pytest.mark.parametrize("seed", range(60))
def test_no_words_in_a_mailbox_make_the_daemon_raise(seed: int) -> None:
    chance = random.Random(seed)
    with closing(Mailbox(NODE)) as box:
        for turn in range(5):
            corrupt(box, chance)
            use(box, f"x#{turn}")
        kept = msgspec.json.decode(msgspec.json.encode(box.snapshot()), type=MailboxSnapshot)
        corrupt(box, chance)
        again = Mailbox.adopt(NODE, (box.memory, box.bell, box.space), kept)
        assert {n: r.plan for n, r in again.rings.items()} == {
            n: r.plan for n, r in box.rings.items()
        }
        corrupt(again, chance)
        use(again, "more")


def test_counters_of_a_constantly_changing_ring_can_be_read() -> None:
    class Moving:
        """Words that change with each read."""

        def __init__(self) -> None:
            self.looks = 0

        def __getitem__(self, at: int) -> int:
            self.looks += 1
            return self.looks

    moving = Moving()
    counters(moving, 0)
    assert moving.looks < 10_000


async def test_a_sleeping_node_is_woken_once_and_gets_everything(tmp_path: Path) -> None:
    """Send more texts than packets may wait for a node that does not read."""
    count = 3000
    out = tmp_path / "received"
    b = replace(node("b"), inputs=(Input("logs", LogSource(), count),))
    async with stage(dataflow(node("a"), b)) as on, Program(on, "b", COUNT, out):
        await until(lambda: on.broker.stats.vitals("b").asleep)
        for number in range(count):
            on.broker.emitter.emit("b", "logs", str(number))
        await until(lambda: out.exists() and out.read_text().count("\n") == count)
        assert out.read_text().split() == list(map(str, range(count)))
        assert on.broker.stats.vitals("b").connected


COUNT = """
import sys
from dora import Node
with open(sys.argv[1], "a", buffering=1) as file:
    for event in Node():
        if event["type"] == "INPUT":
            print(event["value"][0], file=file)
"""
