"""Traces that pass a link to another machine: each machine has its part of them.

What makes a machine keep its part, that it is slow for instance, the others do not know. So all of
them keep the first of each second, and each remembers its latest parts until another one asks.
"""

from collections import deque
from collections.abc import Iterable

from dorad.control import messages as m
from dorad.dataflow.model import LINK
from dorad.trace.model import Message, Tree, forget

LINKED_NS = 1_000_000_000
"""Of each such time, the first message of a topic that goes over a link is kept."""
MAX_LINKED = 4096
"""Topics whose last one is known."""
MAX_RECENT = 10_000
"""Messages of remembered traces, of all dataflows: 6 MB."""

_Key = tuple[str, str, int]
"""A message over a link: dataflow, topic and timestamp."""


class LinkedTraces:
    """The latest parts of traces over links."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], int] = {}
        """The last second in which a message of a topic went over a link, or came over one."""
        self._recent: deque[tuple[Tree, list[_Key]]] = deque()
        self._by_message: dict[_Key, Tree] = {}
        self._size = 0
        """Messages of the remembered traces."""

    def add(self, dataflow: str, tree: Tree) -> bool:
        """Remember a trace, and return True if it is to be kept.

        That is if one of its messages is the first of its second on a link: both machines find the
        same by its timestamp.
        """
        keys = []
        is_first = False
        for message in tree.messages:
            if not _over_link(message, tree):
                continue
            keys.append((dataflow, *message.key))
            key, second = (dataflow, message.topic), message.stamp // LINKED_NS
            if second > self._first.get(key, -1):
                if len(self._first) >= MAX_LINKED:
                    self._first.clear()
                self._first[key] = second
                is_first = True
        self._recent.append((tree, keys))
        self._by_message.update(dict.fromkeys(keys, tree))
        self._size += len(tree.messages)
        # The one just added is still used by its caller, however large it is.
        while self._size > MAX_RECENT and len(self._recent) > 1:
            self._drop_oldest()
        return is_first

    def _drop_oldest(self) -> None:
        tree, keys = self._recent.popleft()
        for key in keys:
            if self._by_message.get(key) is tree:
                del self._by_message[key]
        self._size -= len(tree.messages)
        forget(tree)

    def with_messages(self, dataflow: str, messages: Iterable[m.TraceMessage]) -> list[Tree]:
        """Return the remembered traces with these messages over links."""
        trees = (self._by_message.get((dataflow, each.topic, each.stamp)) for each in messages)
        return [*{id(tree): tree for tree in trees if tree is not None}.values()]


def _over_link(message: Message, tree: Tree) -> bool:
    """Return True if another machine has sent a message, or gets it."""
    if message is tree.messages[0] and not message.local:
        return True
    return any(each.receiver.node == LINK for each in message.arrivals)
