"""Measure nodes, edges and the machine from outside, without asking a node."""
