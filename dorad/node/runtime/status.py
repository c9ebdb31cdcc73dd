"""What an operator answers to an event."""

from enum import Enum


class DoraStatus(Enum):
    """What an operator answers to an event: go on, end itself, or end all operators of its node."""

    CONTINUE = 0
    STOP = 1
    STOP_ALL = 2
