"""Measurements of nodes, edges and the machine. They need no answer from a node."""
