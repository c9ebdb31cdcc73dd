"""Widgets that paint lines themselves: a grid, a log, plots and pictures."""
