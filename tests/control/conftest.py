"""What the tests of the control API share."""

from tests.harness.blocking import nothing_blocks

__all__ = ["nothing_blocks"]
