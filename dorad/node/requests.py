"""Requests of a node to its daemon that have no answer yet.

A request is repeated to the next daemon, because the previous one may not have read it. So there
may be two answers to one request; the second one belongs to no request.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.shm.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.protocol import Packet

_log = logging.getLogger(__name__)

ANSWERS = frozenset({"grown", "full", "ext_done", "ext_refused", "busy_taken", "busy_refused"})


class Request(NamedTuple):
    """A packet that asks for an answer."""

    kind: str
    fields: dict[str, Any]
    descriptors: list[int]


class PendingRequests:
    """The requests without an answer, and the answers that were not taken yet, by number.

    A signal handler may add a request while its thread waits for the answer to another one.
    """

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._answers: dict[int, Packet] = {}
        self._handlers: dict[int, Callable[[Packet], None]] = {}
        self._last = 0

    def __len__(self) -> int:
        """Return the number of requests without an answer."""
        return len(self._requests)

    def add(
        self,
        kind: str,
        fields: dict[str, Any],
        descriptors: Sequence[int],
        handler: Callable[[Packet], None] | None,
    ) -> tuple[int, Request]:
        """Return a new request and its number. `handler` gets the answer; else see `answer`."""
        self._last += 1
        number = self._last
        request = Request(kind, {**fields, "ask": number}, list(descriptors))
        self._requests[number] = request
        if handler is not None:
            self._handlers[number] = handler
        return number, request

    def drop(self, number: int) -> None:
        """Drop a request whose answer matters no longer."""
        self._requests.pop(number, None)
        self._handlers.pop(number, None)

    def take(self, packet: Packet) -> bool:
        """Take an answer; return False if no request waits for it."""
        number = packet.fields.get("ask") or self._last
        if self._requests.pop(number, None) is None:
            return False
        handler = self._handlers.pop(number, None)
        if handler is None:
            self._answers[number] = packet
        else:
            handler(packet)
        return True

    def answer(self, number: int) -> Packet | None:
        """Return and remove the answer to a request; None if it has not arrived yet."""
        return self._answers.pop(number, None)

    def all(self) -> list[Request]:
        """Return all requests without an answer, in the order of sending."""
        return list(self._requests.values())


def segment_of(answer: Packet) -> tuple[int, Mapping]:
    """Return the segment of an answer to `grow`. Raises OSError if it has none."""
    if answer.kind == "full":
        raise OSError(answer.text("error"))
    (memory,) = answer.take(1)
    try:
        return answer.number("segment"), Mapping(memory)
    finally:
        os.close(memory)


def segment_handler(
    arrived: Callable[[tuple[int, Mapping] | None], None],
) -> Callable[[Packet], None]:
    """Return a handler of an answer to `grow` that passes its segment on, None without one."""
    return functools.partial(_pass_on, arrived)


def _pass_on(arrived: Callable[[tuple[int, Mapping] | None], None], answer: Packet) -> None:
    try:
        segment = segment_of(answer)
    except OSError as error:
        _log.debug("no segment ahead of need: %s", error)
        arrived(None)
    else:
        arrived(segment)
