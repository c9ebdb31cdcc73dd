"""The one exception of the test bed."""


class RobotError(Exception):
    """A robot or the test bed failed; the text has the command, the place and the output."""
