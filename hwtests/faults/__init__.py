"""Fault campaigns against running dataflows: what happens to data, logs and processes."""
