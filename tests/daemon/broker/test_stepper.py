"""A node that is stepped runs until it sleeps, however its moves and the stepper's looks mix."""

import asyncio
from collections import deque
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.broker.stepper import Stepper

MESSAGES = 3


class SteppedNode:
    """The mailbox and the connection of a node that moves only while the stepper looks at them."""

    def __init__(self, pauses):
        """`pauses` is how many moves the node makes before each look."""
        self.node = SimpleNamespace(id="n", path="n.py", is_recorder=False, is_dynamic=False)
        self.due = 0
        self.accepted = 0
        self.taken = 0
        self.was_cut = False
        self._words = {"asleep": True, "seen": 0}
        self._moves = deque()
        self._pauses = iter(pauses)

    def send(self, _kind, _fields):
        """Wake up, read the packet, take the messages, and sleep again."""
        self.accepted += 1
        self._moves += [("asleep", False), ("seen", self.accepted)]
        self._moves += [("taken", None)] * MESSAGES + [("asleep", True)]

    def _look(self, word):
        for _ in range(next(self._pauses, 1)):
            if self._moves:
                name, value = self._moves.popleft()
                self.taken += name == "taken"
                self._words[name] = value
        return self._words[word]

    @property
    def asleep(self):
        return self._look("asleep")

    @property
    def seen(self):
        return self._look("seen")

    def step(self, _time_ns, *, held):
        self.was_cut |= held and bool(self._moves)

    def pushed(self):
        return ()


class NoEdges(list):
    """The edges of a dataflow without any."""

    def pushed_by(self, _node):
        return self


@given(st.lists(st.integers(0, 4), max_size=12))
def test_a_turn_ends_when_the_node_has_taken_all_and_sleeps(pauses):
    node = SteppedNode(pauses)
    state = SimpleNamespace(
        dataflow=SimpleNamespace(nodes=[node.node]),
        connections={"n": node},
        mailboxes={"n": node},
        edges=NoEdges(),
    )
    asyncio.run(Stepper(state).advance(1))
    assert (node.taken, node.was_cut) == (MESSAGES, False)
