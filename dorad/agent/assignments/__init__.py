"""Releases on a robot: stage them, switch to them, check their health, and revert."""
