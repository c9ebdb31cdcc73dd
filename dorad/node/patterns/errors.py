"""The errors of calls and goals that end without a reply. All are RuntimeErrors."""

from __future__ import annotations


class ExchangeError(RuntimeError):
    """A call or goal ended without its reply."""


class NoPeerError(ExchangeError):
    """No node can reply, or it is ambiguous which one; nothing was sent."""


class NoAnswerError(ExchangeError, TimeoutError):
    """No valid reply came in time."""


class PeerLostError(ExchangeError):
    """The replying node has ended, failed or restarted, or its input timed out."""


class StoppingError(ExchangeError):
    """The node is being stopped while it waits; its STOP event is not received yet."""


class RemoteError(ExchangeError):
    """The remote handler raised an exception; `kind` is its class name, `text` its message."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.text = text


class GoalCanceledError(ExchangeError):
    """`ServedGoal.check` raises it after a cancel; it ends the handler of the goal."""
