"""The greeting of two link processes: who is there, which version, which credit.

Pure. Zenoh drops silently what is sent before the other end listens, so a greeting is repeated
until it is answered. Each carries a number; a new number opens all channels again.
"""

import time
from collections.abc import Callable, Mapping

import msgspec

from dorad.link.clocks import EXCHANGE_S, Exchange, PeerClock
from dorad.link.frames import OLDEST, VERSION
from dorad.link.hello import Grant, Hello
from dorad.link.reports import PeerStatus
from dorad.shm.layout import agree

REPEAT_S = 0.2
"""Seconds after which a greeting without an answer is repeated."""

UNANSWERED_S = 5.0
MAX_UNANSWERED_S = 320.0
"""Seconds without an answer of a process that is there, after which the session is at fault.

If both ends were stopped for about as long as Zenoh's lease, one may keep the other's declarations
of an earlier connection, while the other has none: messages go one way only, for good. A new
session mends that. Each one without effect doubles the time, since links to other machines
are interrupted by it.
"""

MAX_NAME = 64
"""Maximum number of shown characters of an unknown peer's name."""


class Greeting:
    """The state of the greeting with one machine."""

    def __init__(
        self,
        dataflow: str,
        machine: str,
        incarnation: int,
        peer: str,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`clock` returns ns since 1970, by the clock of this machine."""
        self.peer = peer
        self.clock = PeerClock()
        """That of the other machine."""
        self._own_clock = clock
        self._last_heard: Exchange | None = None
        self._owes_time = False
        """Whether a greeting is due because the other end wants to know our time."""
        self._dataflow = dataflow
        self._machine = machine
        self._incarnation = incarnation
        self.number = 0
        """The number of the present greeting; a change opens all channels again."""
        self._seen: int | None = None
        """The incarnation of the process that is there."""
        self._heard: tuple[int, int] | None = None
        self._answered = False
        self._refusal = ""
        self.left = False
        """Whether the other end has announced that it receives nothing more."""
        self._due_s: float | None = None
        self._unanswered_s: float | None = None
        """Since when the process that is there has not answered."""
        self._tolerated_s = UNANSWERED_S
        self._sent_s = 0.0
        self._round_trip_s = 0.0

    @property
    def up(self) -> bool:
        """Whether both ends have received each other's greeting."""
        return self._heard is not None and self._answered

    @property
    def heard(self) -> bool:
        """Whether the other end is there and its grants can be used."""
        return self._heard is not None

    @property
    def missing(self) -> bool:
        """Whether nothing has been seen of the other end, which has not left by itself."""
        return not (self.up or self.left or self._refusal) and self._seen is None

    def status(self, silence: str = "", now_s: float = 0.0) -> PeerStatus:
        """Return the state, and why it is not up; `silence` is why nothing is seen, if known."""
        if self.up:
            trip = round(self._round_trip_s * 1e6)
            if (offset := self.clock.offset(now_s)) is None:
                return PeerStatus("up", "", trip)
            return PeerStatus("up", "", trip, offset.ns // 1000, -(-offset.margin_ns // 1000))
        if self.left:
            return PeerStatus("absent", f"the dataflow has ended on {self.peer}")
        if self._refusal:
            return PeerStatus("refused", self._refusal)
        if self._seen is not None:
            return PeerStatus("greeting", f"the link process of {self.peer} has not answered yet")
        advice = (
            "check that it runs, its address, that both certificates are of one authority and name "
            "their machines, and that a router has rules for both (`dorafleet router`)"
        )
        unseen = f"no link process of {self.peer} for this dataflow has been seen"
        return PeerStatus("absent", f"{unseen}; {silence or advice}")

    def appear(self, incarnation: int, now_s: float) -> None:
        """Greet a link process that has appeared, unless it is known."""
        if incarnation != self._seen:
            self._seen = incarnation
            self._heard = None
            self._refusal = ""
            self.left = False
            self._unanswered_s = None
            self.restart(now_s)

    def vanish(self, incarnation: int) -> bool:
        """Forget a link process that has vanished; return True if it was the present one."""
        if incarnation != self._seen:
            return False
        self.lose()
        return True

    def lose(self) -> None:
        """Handle that the other end is not seen any more, as after this end closed its session."""
        self._seen = None
        self._forget_answers()

    def _forget_answers(self) -> None:
        self._heard = self._due_s = None
        self._answered = False

    def check_answers(self, now_s: float) -> bool:
        """Return True if the other end is there, but has not answered for so long that only a new
        session can help.
        """
        if self.up:
            self._tolerated_s = UNANSWERED_S
        if self.up or self._seen is None or self._refusal or self.left:
            self._unanswered_s = None
            return False
        if self._unanswered_s is None:
            self._unanswered_s = now_s
        if now_s - self._unanswered_s < self._tolerated_s:
            return False
        self._tolerated_s = min(2 * self._tolerated_s, MAX_UNANSWERED_S)
        return True

    def restart(self, now_s: float) -> None:
        """Send a new greeting, so that all channels to this machine are opened again."""
        self.number += 1
        self._answered = False
        self._due_s = now_s

    def due(self, now_s: float) -> bool:
        """Return True if a greeting must be sent now; of an open link now and then, for clocks."""
        if self.up and (self._owes_time or now_s - self._sent_s >= EXCHANGE_S):
            return True
        return self._due_s is not None and now_s >= self._due_s

    @property
    def due_s(self) -> float | None:
        """When a greeting must be sent; None if none has to be."""
        return self._due_s

    def announce(self, now_s: float) -> None:
        """Repeat the greeting, because channels were added or removed; the others stay open."""
        if self._seen is not None:
            self._due_s = now_s

    def hello(self, grants: Mapping[str, Grant], now_s: float, *, leaving: bool = False) -> bytes:
        """Return the greeting to send now."""
        self._due_s = None if self._answered or self._refusal else now_s + REPEAT_S
        self._sent_s = now_s
        self._owes_time = False
        hello = Hello(
            VERSION,
            self._dataflow,
            self._machine,
            self._incarnation,
            self.number,
            self._heard,
            self._answered,
            dict(grants) if self._heard is not None else {},
            leaving,
            OLDEST,
            self._own_clock(),
            self._last_heard,
        )
        return msgspec.json.encode(hello)

    def hear(self, hello: Hello, now_s: float) -> bool:
        """Handle a greeting; return True if its grants open the channels to the machine again."""
        oldest = hello.version if hello.oldest is None else hello.oldest
        if agree((oldest, hello.version), (OLDEST, VERSION)) is None:
            return self._refuse(
                f"{self.peer} has version {hello.version} of the protocol and this machine "
                f"{VERSION}; install the same version of dorad"
            )
        if hello.dataflow != self._dataflow or hello.machine != self.peer:
            return self._refuse(
                f"{self.peer} calls itself {hello.machine[:MAX_NAME]!r} "
                f"of dataflow {hello.dataflow[:MAX_NAME]!r}"
            )
        self._refusal = ""
        if hello.sent_ns is not None:
            self._last_heard = Exchange(hello.sent_ns, self._own_clock())
            self._owes_time = now_s - self._sent_s >= EXCHANGE_S / 2
            if hello.clock is not None:
                self.clock.add(Exchange(*hello.clock), self._last_heard, now_s)
        if hello.leaving:
            # The end of its liveliness token may be handled before this greeting.
            if self._seen in (hello.incarnation, None):
                self.left = True
                self._forget_answers()
            return False
        if hello.incarnation != self._seen:
            # Its sign of life comes later, or not at all if it replaced a killed process.
            self.appear(hello.incarnation, now_s)
        answered = hello.heard == (self._incarnation, self.number)
        if answered and not self._answered:
            self._round_trip_s = now_s - self._sent_s
            self._due_s = None
        self._answered = answered
        if hello.heard is None or hello.heard[0] != self._incarnation:
            # It has not heard this process, so it has no complete grants yet.
            self._heard = self._heard or (hello.incarnation, 0)
            self._due_s = now_s
            return False
        heard = (hello.incarnation, hello.number)
        is_new = heard != self._heard
        self._heard = heard
        if is_new or not hello.answered:
            self._due_s = now_s
        return is_new

    def _refuse(self, reason: str) -> bool:
        self._refusal = reason
        self._forget_answers()
        return False
