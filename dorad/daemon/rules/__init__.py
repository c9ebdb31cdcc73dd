"""Decisions of the daemon as pure functions: no I/O, no clock."""
