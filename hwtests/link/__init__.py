"""Measures links between machines beside raw Zenoh: `make bench-link`."""
