"""What one operator receives: its own inputs of the node, and the daemon's words about it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dorad.node.receiver import Receiver
from dorad.node.runtime.handed import HandedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.inputs import RingInput, TimerInput
    from dorad.node.news import News
    from dorad.node.runtime.hall import Hall
    from dorad.node.session import Session
    from dorad.shm.spin import Spin

    Served = RingInput | TimerInput | HandedInput


class Inbox(Receiver):
    """The receiver of one operator. Without a hall it is the only one, and waits by itself."""

    def __init__(
        self,
        session: Session,
        news: News,
        inputs: Sequence[Served],
        spin: Spin,
        make_input: Callable[[dict[str, Any]], Served],
        hall: Hall | None,
    ) -> None:
        super().__init__(session, inputs, spin, make_input)  # type: ignore[arg-type]  # see below
        # A HandedInput has what a receiver asks of its inputs, but no ring to look at.
        self._news = news
        self._hall = hall
        self.gate = threading.Lock()
        """Released when it is to look again; whoever waits acquires it."""
        self.gate.acquire()

    def has_something(self) -> bool:
        """Tell whether a look may find an event, or the end."""
        session = self._session
        if session.has_mail():
            session.read_mail()
        news = self._news
        return (
            session.packets != self._packets
            or session.lost
            or (not self._stopped and self._has_news(news))
            or any(item.moved() for item in self._order)
        )

    def _has_news(self, news: News) -> bool:
        ending = bool(news.endings) and not self._must_wait(news.endings[0])
        return ending or bool(news.urgent)

    def due_ns(self) -> int | None:
        """Return when the next tick is due, on CLOCK_MONOTONIC."""
        return self._due_ns(None)

    def close(self) -> None:
        """Take nothing any more: the operator has ended."""
        for item in self._order:
            if isinstance(item, HandedInput):
                item.close()

    def _wait(self, deadline: int | None, only: list[tuple[int, int]] | None = None) -> None:
        if self._hall is None:
            super()._wait(deadline, only)
        else:
            self._hall.wait(self)
