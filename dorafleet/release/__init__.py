"""Releases on the operator's side: build, sign, keep, compare, and send them to robots."""
