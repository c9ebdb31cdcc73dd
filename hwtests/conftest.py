"""The leak check of the tests, for those on robots."""

from tests.harness.leaks import nothing_leaks

__all__ = ["nothing_leaks"]
