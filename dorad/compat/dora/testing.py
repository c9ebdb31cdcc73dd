"""Helpers for testing nodes: `MockNode`."""

from dorad.node.offline.testing import MockNode

__all__ = ["MockNode"]
