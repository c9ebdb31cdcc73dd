"""Decisions of the daemon as functions from data to data: no I/O, no clock."""
