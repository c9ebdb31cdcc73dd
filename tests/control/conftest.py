"""Fixtures of the tests of the control API."""

from tests.harness.blocking import nothing_blocks

__all__ = ["nothing_blocks"]
