"""Helpers for testing nodes: `MockNode`."""

from dorad.node.testing import MockNode

__all__ = ["MockNode"]
