"""The rings of a recorder in this process, without a daemon."""

import os
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pyarrow as pa

from dorad.node.daemonevents import DaemonEvents
from dorad.node.params import Params
from dorad.node.protocol import Packet
from dorad.record.recorder.inputs import RecorderInputs
from dorad.shm import create, doorbell, layout
from dorad.shm.mapping import Mapping
from tests.record.files import raw
from tests.shm.edge import Edge

SOURCES = {"cam___image": "cam/image", "arm___pose": "arm/pose", "log": "dora/logs"}
SIZE = 8


class Robot:
    """The rings of a recorder, what the daemon tells it, and its clock."""

    def __init__(self, box, rings, bells, monkeypatch):
        self.edges = {
            name: Edge(box, ring, bells, False)
            for name, ring in zip((*SOURCES, "late"), rings, strict=True)
        }
        inputs = [self.item(name, source.partition("/")[0]) for name, source in SOURCES.items()]
        self.connection = SimpleNamespace(
            config={"inputs": inputs, "run_config": {"inputs": run_inputs()}},
            box=box,
            bell=bells[0],
            descriptor=bells[1],
            mail=0,
            packets_handled=0,
            read_mail=self._read_mail,
            late_outputs=set(),
            lost=False,
            segments={},
            spaces={},
            daemon_events=DaemonEvents(inputs, Params({})),
        )
        self.reads = 0
        self.events = []
        self.now_s = 100.0
        self.slept = []
        clock = SimpleNamespace(
            monotonic=lambda: self.now_s, sleep=self.slept.append, time_ns=time.time_ns
        )
        monkeypatch.setattr("dorad.record.recorder.inputs.time", clock)

    def item(self, name, source):
        return {"id": name, "ring": self.edges[name].ring.base, "blocking": False, "source": source}

    def _read_mail(self):
        self.reads += 1

    def receiving(self, *, discard=False):
        return RecorderInputs(self.connection, self.events.append, discard=discard)

    def tell(self, kind, **fields):
        """Let the daemon send a packet."""
        self.connection.daemon_events.handle(Packet(kind, fields))
        self.connection.packets_handled += 1

    def send(self, name, *values):
        for value in values:
            self.push(name, pa.array([value]))

    def push(self, name, array, stamp=None):
        code, length, nulls, payload = raw(array)
        head = layout.ENTRY.pack(
            stamp or time.time_ns(), length, nulls, len(payload), 0, 0, 0, 0, 0, code, 0, 0
        )
        self.edges[name].outlet.push(head + payload, len(payload), 1)

    def log(self, *lines):
        for line in lines:
            self.push("log", pa.array([line]))


def run_inputs():
    """Return the inputs as a node's configuration has them: a source, or a table with it."""
    first, *others = SOURCES
    return {first: {"source": SOURCES[first], "queue_size": SIZE}} | {
        name: SOURCES[name] for name in others
    }


@contextmanager
def mailbox():
    plan = layout.plan([SIZE] * 4)
    memory = create.create_mailbox(plan.size)
    box = Mapping(memory)
    os.close(memory)
    for ring in plan.rings:
        box.words[ring.base + layout.RING_CAPACITY] = ring.capacity
        box.words[ring.base + layout.RING_QUEUE_SIZE] = ring.queue_size
        box.words[ring.base + layout.RING_STATE] = layout.STATE_ATTACHED
    bells = [doorbell.create(), doorbell.create()]
    try:
        yield box, plan.rings, bells
    finally:
        for bell in bells:
            os.close(bell)


@contextmanager
def robot_of(monkeypatch):
    """The rings of a recorder that has three inputs, and one to come."""
    with mailbox() as (box, rings, bells):
        made = Robot(box, rings, bells, monkeypatch)
        yield made
        vars(made).clear()  # pytest still holds it while it looks for memory that is left
