"""Helpers for testing nodes: `MockNode`, and `replay` of recordings."""

from dorad.node.offline.replaying import ReplayedDifferentlyError, replay
from dorad.node.offline.testing import MockNode

__all__ = ["MockNode", "ReplayedDifferentlyError", "replay"]
