"""Releases on a robot: make them ready, switch to them, judge them, and go back by itself."""
