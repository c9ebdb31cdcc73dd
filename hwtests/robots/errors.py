"""The one exception of the test bed."""


class RobotError(Exception):
    """A robot or the bed failed; the text says which command, where, and what it printed."""
