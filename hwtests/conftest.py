"""Fixtures of the tests that those on robots use as well."""

from tests.harness.chance import chance
from tests.harness.leaks import nothing_leaks

__all__ = ["chance", "nothing_leaks"]
