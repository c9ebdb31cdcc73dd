"""The return value of an operator's `on_event`."""

from enum import Enum


class DoraStatus(Enum):
    """The return value of `on_event`: continue, stop the operator, or stop all of its node."""

    CONTINUE = 0
    STOP = 1
    STOP_ALL = 2
