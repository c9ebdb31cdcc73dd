"""What belongs to calls, goals and streams: the errors of those who wait, and their types.

The methods themselves are those of `dora.Node`.
"""

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
