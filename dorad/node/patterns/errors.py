"""Why an exchange did not end with its answer. All are RuntimeErrors."""

from __future__ import annotations


class ExchangeError(RuntimeError):
    """An exchange ended without its answer."""


class NoPeerError(ExchangeError):
    """Nobody is there to answer, or it is not clear who; nothing was sent."""


class NoAnswerError(ExchangeError, TimeoutError):
    """The time is over, or what came was no answer."""


class PeerLostError(ExchangeError):
    """Who was to answer has ended, has failed or was restarted, or its input went silent."""


class StoppingError(ExchangeError):
    """The node was told to stop while it waited; the STOP is still to be received."""


class RemoteError(ExchangeError):
    """The handler at the other end raised an exception; `kind` is its name, `text` what it says."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.text = text


class GoalCanceledError(ExchangeError):
    """Raised by `check` of a goal that was canceled, for its handler to end with."""
