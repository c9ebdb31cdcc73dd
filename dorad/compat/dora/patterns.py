"""The types and errors of calls, goals and streams; their methods are those of `dora.Node`."""

from dorad.node.patterns.errors import (
    ExchangeError,
    GoalCanceledError,
    NoAnswerError,
    NoPeerError,
    PeerLostError,
    RemoteError,
    StoppingError,
)
from dorad.node.patterns.goals import Goal
from dorad.node.patterns.goalserver import ServedGoal
from dorad.node.patterns.streams import Chunk, StreamReader, StreamSender

__all__ = [
    "Chunk",
    "ExchangeError",
    "Goal",
    "GoalCanceledError",
    "NoAnswerError",
    "NoPeerError",
    "PeerLostError",
    "RemoteError",
    "ServedGoal",
    "StoppingError",
    "StreamReader",
    "StreamSender",
]
